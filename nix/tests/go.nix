# The Go tests that need neither root nor a daemon, which a build has not. All of
# them run by `make test`.
{ package }:
package.overrideAttrs (old: {
  pname = "${old.pname}-go-tests";
  doCheck = true;
  checkPhase = ''
    runHook preCheck
    go test ./deployer ./deployer/{api,node,phonehome,server,strictjson} ./bgp/health
    runHook postCheck
  '';
})
