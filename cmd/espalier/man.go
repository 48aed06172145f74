package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is `espalier man`, which packaging calls. SOURCE_DATE_EPOCH is the
// date that stands in the pages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			date := time.Now()
			if epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date = time.Unix(epoch, 0)
			}
			cmd.Root().DisableAutoGenTag = true
			return writeManual(cmd.Root(), args[0], date.UTC())
		},
	}
}

// writeManual writes the page of a command, and those of the commands below it.
func writeManual(cmd *cobra.Command, dir string, date time.Time) error {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writeManual(c, dir, date); err != nil {
			return err
		}
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	header := &doc.GenManHeader{
		Title: strings.ToUpper(name), Section: "1", Date: &date,
		Source: "espalier " + programVersion(), Manual: "Espalier",
	}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".1"), manPage(page.Bytes(), date), 0o644)
}

var (
	manTitle  = regexp.MustCompile(`(?m)^(\.TH "[^"]*" "1") "[^"]*"`)
	manOption = regexp.MustCompile(`(?m)^(?:\.PP\n)?(\\fB-.*)\n\t(.*)$`)
)

// manPage mends what cobra writes: a date without its day, and options that are
// paragraphs with a tab in them and no list.
func manPage(page []byte, date time.Time) []byte {
	page = manTitle.ReplaceAll(page, []byte(`$1 "`+date.Format(time.DateOnly)+`"`))
	return manOption.ReplaceAll(page, []byte(".TP\n$1\n$2"))
}
