package auth

import (
	"strings"
	"testing"
)

func TestParseHash(t *testing.T) {
	good := bcryptOf(t, "$2y$", "x")
	const none = "no bcrypt or argon2id hash (`espalier passwd` makes one)"
	salt, key := "c29tZXNhbHQ", "RdescudvJCsgt3ub+b2dWRWJTmaaJObG"
	argon := func(head string) string { return head + "$" + salt + "$" + key }
	for _, tt := range []struct{ name, text, want string }{
		{"bcrypt 2y", good, ""},
		{"argon2id", argon("$argon2id$v=19$m=19456,t=2,p=1"), ""},
		{"argon2id, the most", argon("$argon2id$v=19$m=65536,t=16,p=16"), ""},
		{"nothing", "", none},
		{"plain text", "secret", none},
		{"MD5", "$apr1$mEV6CoN6$9yGcpVSTsd7MH8rSfTkHQ1", none},
		{"SHA-1", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", none},
		{"cut short", good[:59], none},
		{"something behind", good + ":x", none},
		{"the broken 2x", "$2x" + good[3:], none},
		{"not its alphabet", good[:20] + "!" + good[21:], none},
		{"cost 3", "$2y$03" + good[6:], none},
		{"cost 18", "$2y$18" + good[6:], "a bcrypt hash of cost 18, too slow to check (allowed: 17 at most)"},
		{"argon2i", argon("$argon2i$v=19$m=19456,t=2,p=1"), none},
		{"argon2id 1.0", argon("$argon2id$v=16$m=19456,t=2,p=1"), none},
		{"no memory", argon("$argon2id$v=19$m=0,t=2,p=1"), none},
		{"no passes", argon("$argon2id$v=19$m=19456,t=0,p=1"), none},
		{"no threads", argon("$argon2id$v=19$m=19456,t=2,p=0"), none},
		{"too much memory", argon("$argon2id$v=19$m=65537,t=2,p=1"), "an argon2id hash that takes 65537 KiB of memory (allowed: m=65536 at most)"},
		{"memory that wraps", argon("$argon2id$v=19$m=4294967304,t=2,p=1"), "an argon2id hash that takes 4294967304 KiB of memory (allowed: m=65536 at most)"},
		{"memory of many digits", argon("$argon2id$v=19$m=18446744073709551624,t=2,p=1"), none},
		{"too many passes", argon("$argon2id$v=19$m=19456,t=17,p=1"), "an argon2id hash of 17 passes, too slow to check (allowed: t=16 at most)"},
		{"too many threads", argon("$argon2id$v=19$m=19456,t=2,p=17"), "an argon2id hash with p=17 (allowed: 16 at most, and an eighth of m)"},
		{"threads that wrap", argon("$argon2id$v=19$m=19456,t=2,p=257"), "an argon2id hash with p=257 (allowed: 16 at most, and an eighth of m)"},
		{"too little memory for the threads", argon("$argon2id$v=19$m=15,t=2,p=2"), "an argon2id hash with p=2 (allowed: 16 at most, and an eighth of m)"},
		{"short salt", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$" + key, none},
		{"short key", "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$RdescudvJCs", none},
		{"long key", "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + strings.Repeat("A", 88), none},
		{"no base64", "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + key[:31] + "*", none},
		{"padding", argon("$argon2id$v=19$m=19456,t=2,p=1") + "=", none},
		{"another order", argon("$argon2id$v=19$t=2,m=19456,p=1"), none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseHash(tt.text)
			if (h == nil) != (tt.want != "") || err != nil && err.Error() != tt.want || err == nil && tt.want != "" {
				t.Errorf("parseHash = %v, %v; want %q", h, err, tt.want)
			}
		})
	}
}

// The test vector is of the reference implementation (argon2 in Debian).
func TestArgon2Vector(t *testing.T) {
	// echo -n password | argon2 somesalt -id -t 2 -m 10 -p 2 -l 24 -e
	h, err := parseHash("$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHQ$SXRPdBUYF/q82eTzDqzEkG0+sFSFPpb/")
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches("password") || h.matches("Password") || h.matches("") {
		t.Error("argon2id does not say what the reference implementation says")
	}
}

func TestLine(t *testing.T) {
	for _, useBcrypt := range []bool{false, true} {
		line, err := Line("Åsa L", "smörgås", useBcrypt)
		if err != nil {
			t.Fatal(err)
		}
		name, text, _ := strings.Cut(line, ":")
		h, err := parseHash(text)
		if name != "Åsa L" || err != nil || !h.matches("smörgås") || h.matches("smorgas") {
			t.Errorf("%s: %v", line, err)
		}
	}
	first, _ := Line("ann", "x", false)
	if second, _ := Line("ann", "x", false); first == second {
		t.Errorf("twice the same salt: %s", first)
	}
	for what, pair := range map[string][2]string{
		"no name": {"", "x"}, "a colon": {"a:b", "x"}, "a comment": {"#a", "x"}, "space in front": {" a", "x"}, "space behind": {"a ", "x"},
		"a line break": {"a\nb", "x"}, "no UTF-8": {"a\xff", "x"}, "a long name": {strings.Repeat("a", maxName+1), "x"},
		"no password": {"a", ""}, "a long password": {"a", strings.Repeat("x", maxPassword+1)},
	} {
		for _, useBcrypt := range []bool{false, true} {
			if line, err := Line(pair[0], pair[1], useBcrypt); err == nil || line != "" {
				t.Errorf("%s: %q", what, line)
			}
		}
	}
	if line, err := Line("a", strings.Repeat("x", 73), true); err == nil {
		t.Errorf("bcrypt of 73 bytes: %s", line)
	}
}

// Whatever a file holds, no hash asks for more than the limits.
func FuzzParseHash(f *testing.F) {
	f.Add("$2y$05$abcdefghijklmnopqrstuu5s.HzLbCWzGHbLWxkW3sFkvbD1cSeS2")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b2dWRWJTmaaJObG")

	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if (h == nil) == (err == nil) {
			t.Fatalf("parseHash(%q) = %v, %v", s, h, err)
		}
		switch h := h.(type) {
		case bcryptHash:
			if h.cost < 4 || h.cost > maxCost {
				t.Fatalf("cost %d of %q", h.cost, s)
			}
		case argon2Hash:
			if h.memory < 8 || h.memory > maxMemory || h.passes < 1 || h.passes > maxPasses || h.threads < 1 || h.threads > maxThreads ||
				len(h.salt) < 8 || len(h.key) < 16 || len(h.key) > 64 {
				t.Fatalf("%+v of %q", h, s)
			}
		}
	})
}
