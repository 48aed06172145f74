// Package slapdtest runs OpenLDAP's slapd for tests: a directory of a school on
// loopback ports, in a directory of its own.
package slapdtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Who searches. Nobody else may read anything.
const (
	Base           = "dc=school,dc=example"
	SearchDN       = "uid=search," + Base
	SearchPassword = "search secret"
	adminDN        = "cn=admin," + Base
	adminPassword  = "admin secret"
)

// A Server is a running slapd.
type Server struct {
	URL    string // ldap://127.0.0.1:PORT, with StartTLS
	TLSURL string // ldaps://127.0.0.1:PORT
	Roots  string // the file of the certificate that it has

	t     testing.TB
	dir   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has
}

// Start starts a server with the entries of people, and stops it when the test
// ends. The test is skipped where slapd is not installed.
//
// Teachers are alice ("alice secret", in the groups staff and board) and Jörg
// Ö*(x)\ ("jörg secret", in staff), pupils bob ("bob secret", in pupils). carol has
// a group named staff below ou=clubs. twin is the name of two people. locked has
// no password that opens.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := exec.LookPath("slapd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/slapd"); err != nil {
			t.Skip("slapd is missing (make deps installs it)")
		}
	}
	dir, err := os.MkdirTemp("", "slapd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{t: t, dir: dir, Roots: filepath.Join(dir, "cert.pem")}
	// A copy, which no profile of AppArmor keeps from reading dir.
	if err := copyFile(program, filepath.Join(dir, "slapd")); err != nil {
		t.Fatal(err)
	}
	s.certificate()
	s.write("slapd.conf", fmt.Sprintf(config, dir, modules(), Base, adminDN, adminPassword, SearchDN))
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ { // others may be faster to take the ports
		s.URL, s.TLSURL = "ldap://"+freePort(t), "ldaps://"+freePort(t)
		if err = s.run(); err == nil {
			break
		}
		if try == 3 {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.Stop)
	s.fill()
	return s
}

// Run starts the server again after Stop, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	if err := s.run(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) run() error {
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.dir, "slapd"), "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.URL+" "+s.TLSURL, "-d", "0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, mostly
		close(s.ended)
	}()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		select {
		case <-s.ended:
			return fmt.Errorf("slapd has ended\n%s", log.String())
		case <-time.After(10 * time.Millisecond):
		}
		// Not only connect: somebody else may have been faster to take the port.
		if c, err := ldap.DialURL(s.URL); err == nil {
			c.SetTimeout(time.Second)
			err := c.Bind(adminDN, adminPassword)
			c.Close()
			if err == nil {
				return nil
			}
		}
	}
	s.Stop()
	return fmt.Errorf("slapd does not answer\n%s", log.String())
}

// Stop ends the server; what it holds stays.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill() // fails where it has ended
	<-s.ended
}

// Admin opens a connection that may do everything.
func (s *Server) Admin() *ldap.Conn {
	s.t.Helper()
	c, err := ldap.DialURL(s.URL)
	if err == nil {
		err = c.Bind(adminDN, adminPassword)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Password sets the password of the person with that uid.
func (s *Server) Password(uid, password string) {
	s.t.Helper()
	c := s.Admin()
	defer c.Close()
	r := ldap.NewModifyRequest("uid="+uid+",ou=people,"+Base, nil)
	r.Replace("userPassword", []string{password})
	if err := c.Modify(r); err != nil {
		s.t.Fatal(err)
	}
}

// LockAfter makes the server lock people at so many failed binds.
func (s *Server) LockAfter(failures int) {
	s.t.Helper()
	c := s.Admin()
	defer c.Close()
	const policy = "cn=policy," + Base
	add := ldap.NewAddRequest(policy, nil)
	add.Attribute("objectClass", []string{"organizationalRole", "pwdPolicy"})
	add.Attribute("pwdAttribute", []string{"userPassword"})
	add.Attribute("pwdLockout", []string{"TRUE"})
	add.Attribute("pwdMaxFailure", []string{strconv.Itoa(failures)})
	if err := c.Add(add); err != nil {
		s.t.Fatal(err)
	}
	people, err := c.Search(ldap.NewSearchRequest("ou=people,"+Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
		0, 0, false, "(objectClass=inetOrgPerson)", []string{"1.1"}, nil))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range people.Entries {
		r := ldap.NewModifyRequest(p.DN, nil)
		r.Replace("pwdPolicySubentry", []string{policy})
		if err := c.Modify(r); err != nil {
			s.t.Fatal(err)
		}
	}
}

const config = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile %[1]s/pid
argsfile %[1]s/args
%[2]s
# What clients must not rely on being refused: a bind without a password.
allow bind_anon_cred
TLSCertificateFile %[1]s/cert.pem
TLSCertificateKeyFile %[1]s/key.pem
database mdb
suffix "%[3]s"
directory %[1]s/db
rootdn "%[4]s"
rootpw "%[5]s"
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="%[6]s" read by * none
overlay memberof
overlay ppolicy
`

// modules are the lines that load what is not built in.
func modules() string {
	text := ""
	for _, dir := range []string{"/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap"} {
		if _, err := os.Stat(filepath.Join(dir, "back_mdb.la")); err == nil {
			text = "modulepath " + dir + "\nmoduleload back_mdb\nmoduleload memberof\nmoduleload ppolicy\n"
		}
	}
	return text
}

// fill makes the entries.
func (s *Server) fill() {
	s.t.Helper()
	c := s.Admin()
	defer c.Close()
	add := func(dn string, attributes ...string) {
		s.t.Helper()
		r := ldap.NewAddRequest(dn, nil)
		for i := 0; i < len(attributes); i += 2 {
			r.Attribute(attributes[i], []string{attributes[i+1]})
		}
		if err := c.Add(r); err != nil {
			s.t.Fatalf("%s: %v", dn, err)
		}
	}
	person := func(dn, uid, password string) {
		s.t.Helper()
		add(dn, "objectClass", "inetOrgPerson", "uid", uid, "cn", uid, "sn", uid, "userPassword", password)
	}
	group := func(dn string, members ...string) {
		s.t.Helper()
		r := ldap.NewAddRequest(dn, nil)
		r.Attribute("objectClass", []string{"groupOfNames"})
		r.Attribute("member", members)
		if err := c.Add(r); err != nil {
			s.t.Fatalf("%s: %v", dn, err)
		}
	}
	add(Base, "objectClass", "domain", "dc", "school")
	for _, ou := range []string{"people", "groups", "clubs", "twins"} {
		add("ou="+ou+","+Base, "objectClass", "organizationalUnit", "ou", ou)
	}
	person(SearchDN, "search", SearchPassword)
	const people, groups = ",ou=people," + Base, ",ou=groups," + Base
	person("uid=alice"+people, "alice", "alice secret")
	person("uid=bob"+people, "bob", "bob secret")
	person("uid=carol"+people, "carol", "carol secret")
	person("uid=locked"+people, "locked", "{SSHA}x")
	person("uid=twin"+people, "twin", "twin secret")
	person("uid=twin,ou=twins,"+Base, "twin", "twin secret")
	odd := "uid=" + ldap.EscapeDN(`Jörg Ö*(x)\`) + people
	person(odd, `Jörg Ö*(x)\`, "jörg secret")
	group("cn=staff"+groups, "uid=alice"+people, odd)
	group("cn=board"+groups, "uid=alice"+people)
	group("cn=pupils"+groups, "uid=bob"+people)
	group("cn=staff,ou=clubs,"+Base, "uid=carol"+people)
}

// Refer adds a referral to another server below the people.
func (s *Server) Refer(url string) {
	s.t.Helper()
	c := s.Admin()
	defer c.Close()
	r := ldap.NewAddRequest("ou=far,ou=people,"+Base, []ldap.Control{ldap.NewControlManageDsaIT(true)})
	r.Attribute("objectClass", []string{"referral", "extensibleObject"})
	r.Attribute("ou", []string{"far"})
	r.Attribute("ref", []string{url})
	if err := c.Add(r); err != nil {
		s.t.Fatal(err)
	}
}

// certificate makes one for 127.0.0.1 that is its own authority.
func (s *Server) certificate() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "slapd"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func (s *Server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// freePort is an address that nobody listens on at the moment.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
