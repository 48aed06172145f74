package catalog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// dates are the forms that a date has: the day in front, the month in front, in
// Chinese and Japanese, and as numbers. Each names its groups.
var dates = []*regexp.Regexp{
	regexp.MustCompile(`\b(?P<d>\d{1,2})\.? (?:de |d’|d')?(?P<m>\pL{3,})\.? (?:de )?(?P<y>20\d\d)\b`),
	regexp.MustCompile(`(?P<m>\pL{3,})\.? (?P<d>\d{1,2}), ?(?P<y>20\d\d)\b`),
	regexp.MustCompile(`(?P<y>20\d\d) ?[年년] ?(?P<m>\d{1,2}) ?[月월] ?(?P<d>\d{1,2}) ?[日일]`),
	regexp.MustCompile(`\b(?P<y>20\d\d)-(?P<m>\d\d)-(?P<d>\d\d)\b`),
	regexp.MustCompile(`\b(?P<d>\d{1,2})\. ?(?P<m>\d{1,2})\. ?(?P<y>20\d\d)\b`),
}

// monthsOnly are the forms of a month and a year.
var monthsOnly = []*regexp.Regexp{
	regexp.MustCompile(`(?P<m>\pL{3,})\.? (?:de )?(?P<y>20\d\d)\b`),
	regexp.MustCompile(`(?P<y>20\d\d) ?[年년] ?(?P<m>\d{1,2}) ?[月월]`),
}

// edition is the month of the article's edition, "2024-07": that of the last
// date in text, where its date of publication is, or else the newest month, of
// its list of changes. It is empty where there is neither.
func edition(text string) string {
	last, at := "", -1
	for _, re := range dates {
		for _, m := range re.FindAllStringSubmatchIndex(text, -1) {
			if date := dateOf(re, text, m); date != "" && m[0] > at {
				last, at = date, m[0]
			}
		}
	}
	if last != "" {
		return last
	}
	for _, re := range monthsOnly {
		for _, m := range re.FindAllStringSubmatchIndex(text, -1) {
			last = max(last, dateOf(re, text, m))
		}
	}
	return last
}

// dateOf is the month that a match m of re says, "" where it is none.
func dateOf(re *regexp.Regexp, text string, m []int) string {
	group := func(name string) string {
		i := 2 * re.SubexpIndex(name)
		return text[m[i]:m[i+1]]
	}
	month, err := strconv.Atoi(group("m"))
	if err != nil {
		month = monthOf(strings.ToLower(group("m")))
	}
	if month < 1 || month > 12 {
		return ""
	}
	return fmt.Sprintf("%s-%02d", group("y"), month)
}

// monthOf is the number of a month's name, by its longest beginning that is
// known; 0 where there is none.
func monthOf(name string) (month int) {
	longest := 0
	for i, begins := range months {
		for b := range strings.FieldsSeq(begins) {
			if len(b) > longest && strings.HasPrefix(name, b) {
				month, longest = i+1, len(b)
			}
		}
	}
	return month
}

var monthInText = regexp.MustCompile(`20\d\d-\d\d`)

// monthIn is the month that a date or source of a row names, "" where it names
// none: "2023-07" of "after 2023-07" and of "article 2023-07".
func monthIn(s string) string { return monthInText.FindString(s) }
