"use strict";
// Renews the page when something happens: the stream of events says that it did, and
// the same page, loaded again, says what it looks like now. Each part with data-live
// that differs takes the place of the old one; forms are in none of them. What no event
// tells, such as when a node was last heard, is looked at every ten seconds.
(() => {
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const soon = 250, least = 1500, often = 10000; // milliseconds
  let cursor = document.body.dataset.cursor;
  let stream, timer, last = 0, until = 0, loading = false, news = [];

  function state(on) {
    live.className = "live " + (on ? "on" : "off");
    live.textContent = on ? "Live" : "Not connected";
  }

  // One that nobody sees holds no stream: of HTTP/1.1 a browser gives a host six
  // connections, for all of its tabs.
  function watch() {
    if (stream) stream.close();
    if (document.hidden) return;
    stream = new EventSource("/ui/stream?after=" + encodeURIComponent(cursor));
    stream.onopen = () => state(true);
    stream.onerror = (e) => {
      if (e.target !== stream) return;
      state(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(watch, often); // it does not come again by itself
    };
    stream.onmessage = (e) => {
      cursor = e.lastEventId;
      const event = JSON.parse(e.data);
      news.push((event.node_id || event.vip || "fleet") + ": " + event.event.replaceAll("_", " "));
      until = Date.now() + 4000; // of a large fleet the deployer may show what it read a moment ago
      renew(soon);
    };
    stream.addEventListener("problem", () => { // the cursor is too old, or the token is
      stream.close();
      cursor = "";
      renew(soon);
    });
  }

  function renew(wait) {
    const due = Math.max(wait, last + least - Date.now());
    clearTimeout(timer);
    timer = setTimeout(load, due);
  }

  function load() {
    clearTimeout(timer);
    timer = setTimeout(load, Date.now() < until ? least : often);
    // Whoever marks text wants to keep it for a moment, and nobody sees a hidden page.
    if (loading || document.hidden || String(getSelection())) return;
    loading = true;
    last = Date.now();
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = often;
    request.onloadend = () => {
      loading = false;
      const fresh = request.response;
      if (request.status !== 200 || !fresh) return state(false);
      if (!fresh.body.dataset.cursor) return location.reload(); // signed out
      if (!cursor) {
        cursor = fresh.body.dataset.cursor;
        watch();
      }
      put(fresh);
    };
    request.send();
  }

  function put(fresh) {
    const focused = document.activeElement && document.activeElement.id;
    for (const old of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(old.id);
      if (!next || old.isEqualNode(next)) continue;
      const at = [...old.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
      old.replaceChildren(...[...next.childNodes].map((n) => document.importNode(n, true)));
      old.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = at[i] || 0; });
    }
    if (focused && document.activeElement.id !== focused) {
      const again = document.getElementById(focused);
      if (again) again.focus({ preventScroll: true });
    }
    if (news.length > 0) {
      said.textContent = news.slice(-3).join("; ") + (news.length > 3 ? "; and " + (news.length - 3) + " more" : "");
      news = [];
    }
  }

  document.addEventListener("visibilitychange", () => {
    watch();
    if (!document.hidden) renew(0);
  });
  watch();
  timer = setTimeout(load, often);
})();
