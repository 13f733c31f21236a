package simnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Resolver is a resolver without a network, that gives the addresses of a name as answer says,
// which is called with each question: for those of IPv4 and those of IPv6 on their own. It gets the
// name in lower case without a trailing dot, and gives nil for one that does not exist. So a test
// can change the addresses of a name at any time.
func Resolver(answer func(name string) []netip.Addr) *net.Resolver {
	return NameServer(func(name string) *Name {
		addrs := answer(name)
		if addrs == nil {
			return nil
		}
		return &Name{Addrs: addrs}
	})
}

// Name is what a name server has of a name.
type Name struct {
	Addrs []netip.Addr
	Texts []string // of its TXT records
	Fails bool     // the server cannot answer
}

// NameServer is Resolver for names that also have texts. answer gives nil for a name that does not
// exist.
func NameServer(answer func(name string) *Name) *net.Resolver {
	return &net.Resolver{PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return &nameServer{answer: answer}, nil
		}}
}

// data returns the records of a type.
func (n *Name) data(typ uint16) (all [][]byte) {
	if n == nil || n.Fails {
		return nil
	}
	for _, addr := range n.Addrs {
		if addr.Is4() && typ == typeA || addr.Is6() && typ == typeAAAA {
			all = append(all, addr.AsSlice())
		}
	}
	for _, text := range n.Texts {
		var parts []byte
		for part := range slices.Chunk([]byte(text), 255) {
			parts = append(append(parts, byte(len(part))), part...)
		}
		if typ == typeTXT {
			all = append(all, parts)
		}
	}
	return all
}

// Private are addresses that must not be called, one of each kind that a policy has to refuse.
func Private() []netip.Addr {
	var all []netip.Addr
	for _, text := range []string{
		"127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
		"224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:10.1.2.3", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a01:203",
		"2002:7f00:1::1", "2001::1",
	} {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

const (
	typeA    = 1
	typeTXT  = 16
	typeAAAA = 28
)

// nameServer is a connection to a name server (RFC 1035), as over TCP: each message with its length
// in front.
type nameServer struct {
	answer func(name string) *Name

	// mu guards:
	mu      sync.Mutex
	answers bytes.Buffer
}

func (s *nameServer) Write(query []byte) (int, error) {
	const header = 12
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(query) < 2+header {
		return 0, io.ErrShortWrite
	}
	msg := query[2:]
	at, labels := header, []string(nil)
	for at < len(msg) && msg[at] != 0 {
		end := at + 1 + int(msg[at])
		if end >= len(msg) {
			return 0, io.ErrShortWrite
		}
		labels = append(labels, string(msg[at+1:end]))
		at = end
	}
	question := msg[header : at+5]
	typ := binary.BigEndian.Uint16(msg[at+1:])
	name := s.answer(strings.ToLower(strings.Join(labels, ".")))
	var records []byte
	count := uint16(0)
	for _, b := range name.data(typ) {
		records = append(records, 0xc0, header) // the name of the question
		records = binary.BigEndian.AppendUint16(records, typ)
		records = append(records, 0, 1, 0, 0, 0, 0) // IN, for no time
		records = binary.BigEndian.AppendUint16(records, uint16(len(b)))
		records = append(records, b...)
		count++
	}
	flags := uint16(0x8180)
	switch {
	case name == nil:
		flags |= 3 // no such name
	case name.Fails:
		flags |= 2
	}
	reply := append([]byte(nil), msg[:2]...)
	for _, n := range []uint16{flags, 1, count, 0, 0} {
		reply = binary.BigEndian.AppendUint16(reply, n)
	}
	reply = append(append(reply, question...), records...)
	s.answers.Write(binary.BigEndian.AppendUint16(nil, uint16(len(reply))))
	s.answers.Write(reply)
	return len(query), nil
}

func (s *nameServer) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers.Read(b)
}

func (s *nameServer) Close() error                     { return nil }
func (s *nameServer) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *nameServer) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *nameServer) SetDeadline(time.Time) error      { return nil }
func (s *nameServer) SetReadDeadline(time.Time) error  { return nil }
func (s *nameServer) SetWriteDeadline(time.Time) error { return nil }
