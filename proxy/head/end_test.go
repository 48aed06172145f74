package head

import "testing"

func TestEnd(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "A: b": 0, "A: b\r\n": 0, "A: b\r\n\r": 0, "A: b\r\n\r\nbody": 8, "A: b\n\nbody": 6, "A: b\n\r\n": 7, "A: b\r\n\n": 7, "\r\n": 0, "\r\n\r\n": 4, "\n\n": 2,
	} {
		for from := range len(in) + 1 {
			if want > 0 && from >= want {
				break // it is known not to be there
			}
			if got := End([]byte(in), from); got != want {
				t.Errorf("%q from %d: %d, want %d", in, from, got, want)
			}
		}
	}
}
