package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"syscall"
	"time"

	berrors "go.etcd.io/bbolt/errors"
)

// bbolt trusts its file: a page that is damaged makes it panic, or read where no memory
// is, which ends the process at a later time with nothing to tell an operator. So the
// structure of all pages is checked before bbolt gets the file. What is in a record is
// no matter of structure; store.Decode looks at that.

// errDamaged is the structure of a file that cannot be one that bbolt wrote.
var errDamaged = errors.New("the file is damaged")

// open is bbolt.Options.OpenFile: the file, locked and checked. bbolt locks it again,
// which changes nothing.
func (cfg Config) open(path string, flag int, mode os.FileMode) (*os.File, error) {
	file, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if err := lock(file, cfg.LockTimeout); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := checkFile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func lock(file *os.File, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return berrors.ErrTimeout
		}
	}
}

// checkFile checks all pages of a file that has some; an empty one is a new store.
func checkFile(file *os.File) error {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	return errors.Join(check(data), syscall.Munmap(data))
}

// A page begins with its number, what it is, how many elements it has, and how many
// pages after it belong to it.
const (
	pageHeader  = 16
	elementSize = 16

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageFreelist = 0x10

	leafBucket = 0x01 // an element of a leaf that is a bucket
)

var order = binary.NativeEndian

// meta is one of the two pages that say where all else is.
type meta struct {
	pageSize, root, freelist, high, tx uint64
}

const metaBytes = 64

func readMeta(data []byte, at int) (m meta, ok bool) {
	if len(data) < at+pageHeader+metaBytes {
		return m, false
	}
	header, body := data[at:], data[at+pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(body[:metaBytes-8])
	if order.Uint16(header[8:])&pageMeta == 0 || order.Uint32(body) != 0xED0CDAED || order.Uint32(body[4:]) != 2 || order.Uint64(body[56:]) != sum.Sum64() {
		return m, false
	}
	return meta{
		pageSize: uint64(order.Uint32(body[8:])), root: order.Uint64(body[16:]),
		freelist: order.Uint64(body[32:]), high: order.Uint64(body[40:]), tx: order.Uint64(body[48:]),
	}, true
}

// check goes through all pages that the newer meta page leads to. Where neither is
// one, bbolt says so itself.
func check(data []byte) error {
	m, ok := readMeta(data, 0)
	for size := 1024; !ok && size <= 64<<10; size *= 2 { // the first may be torn
		m, ok = readMeta(data, size)
	}
	if !ok {
		if len(data) < 2*os.Getpagesize() { // too short for bbolt to find out what it is
			return berrors.ErrInvalid
		}
		return nil
	}
	if other, found := readMeta(data, int(m.pageSize)); found && other.tx > m.tx {
		m = other
	}
	if m.pageSize < 1024 || m.pageSize > 64<<10 || m.high > uint64(len(data))/m.pageSize {
		return fmt.Errorf("%w: it has %d bytes, and should have %d pages of %d", errDamaged, len(data), m.high, m.pageSize)
	}
	c := checker{meta: m, data: data, used: make([]bool, m.high)}
	if err := c.tree(m.root, nil, nil); err != nil {
		return err
	}
	return c.freelist()
}

type checker struct {
	meta
	data []byte
	used []bool
}

func (c *checker) bad(page uint64, what string, args ...any) error {
	return fmt.Errorf("%w: page %d: %s", errDamaged, page, fmt.Sprintf(what, args...))
}

// page is all bytes of the page, which nobody else may have.
func (c *checker) page(number uint64, kinds ...uint16) ([]byte, error) {
	if number < 2 || number >= c.high {
		return nil, c.bad(number, "there is none of that number")
	}
	page := c.data[number*c.pageSize:]
	kind, overflow := order.Uint16(page[8:]), uint64(order.Uint32(page[12:]))
	switch {
	case order.Uint64(page) != number:
		return nil, c.bad(number, "it says that it is page %d", order.Uint64(page))
	case !slices.Contains(kinds, kind):
		return nil, c.bad(number, "it is of the wrong kind, %#x", kind)
	case number+overflow >= c.high:
		return nil, c.bad(number, "it goes beyond the end")
	}
	for p := number; p <= number+overflow; p++ {
		if c.used[p] {
			return nil, c.bad(p, "it is in use twice")
		}
		c.used[p] = true
	}
	return page[:(overflow+1)*c.pageSize], nil
}

// tree checks the pages of a bucket, whose keys are from least on and below end; nil
// is no bound.
func (c *checker) tree(number uint64, least, end []byte) error {
	page, err := c.page(number, pageBranch, pageLeaf)
	if err != nil {
		return err
	}
	return c.elements(number, page, least, end)
}

func (c *checker) elements(number uint64, page, least, end []byte) error {
	count := int(order.Uint16(page[10:]))
	if pageHeader+count*elementSize > len(page) {
		return c.bad(number, "it has no room for %d elements", count)
	}
	branch := order.Uint16(page[8:]) == pageBranch
	if branch && count == 0 {
		return c.bad(number, "it has no elements")
	}
	key := func(i int) (key, value []byte, err error) {
		at := pageHeader + i*elementSize
		element := page[at : at+elementSize]
		position, keySize, valueSize := uint64(order.Uint32(element[4:])), uint64(order.Uint32(element[8:])), uint64(order.Uint32(element[12:]))
		if branch {
			position, keySize, valueSize = uint64(order.Uint32(element)), uint64(order.Uint32(element[4:])), 0
		}
		begin := uint64(at) + position
		if begin+keySize+valueSize > uint64(len(page)) || position < elementSize {
			return nil, nil, c.bad(number, "element %d is not within it", i)
		}
		return page[begin : begin+keySize], page[begin+keySize : begin+keySize+valueSize], nil
	}
	for i := range count {
		name, value, err := key(i)
		if err != nil {
			return err
		}
		// The first key of a branch may be greater than those of its page, where a smaller
		// one was put in later.
		if !(branch && i == 0) && (least != nil && bytes.Compare(name, least) < 0 || end != nil && bytes.Compare(name, end) >= 0) {
			return c.bad(number, "element %d is out of order", i)
		}
		last := end
		if i+1 < count {
			next, _, err := key(i + 1)
			if err != nil {
				return err
			}
			if bytes.Compare(name, next) >= 0 {
				return c.bad(number, "element %d is out of order", i+1)
			}
			last = next
		}
		at := pageHeader + i*elementSize
		switch {
		case branch:
			first := name
			if i == 0 {
				first = least
			}
			err = c.tree(order.Uint64(page[at+8:]), first, last)
		case order.Uint32(page[at:])&leafBucket != 0:
			err = c.bucket(number, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks one that is an element of a leaf. A small one is in the element itself.
func (c *checker) bucket(number uint64, value []byte) error {
	const header = 16
	if len(value) < header {
		return c.bad(number, "it has a bucket of %d bytes", len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return c.tree(root, nil, nil)
	}
	page := value[header:]
	if len(page) < pageHeader || order.Uint16(page[8:]) != pageLeaf {
		return c.bad(number, "it has a small bucket that is none")
	}
	return c.elements(number, page, nil, nil)
}

// freelist checks that no page which is in use counts as free.
func (c *checker) freelist() error {
	page, err := c.page(c.meta.freelist, pageFreelist)
	if err != nil {
		return err
	}
	count, list := uint64(order.Uint16(page[10:])), page[pageHeader:]
	if count == 0xFFFF { // more than that fits
		count, list = order.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return c.bad(c.meta.freelist, "it has no room for %d pages", count)
	}
	for i := range count {
		free := order.Uint64(list[i*8:])
		if free < 2 || free >= c.high || c.used[free] {
			return c.bad(free, "it is in use, and on the list of free ones")
		}
		c.used[free] = true
	}
	return nil
}
