// Package labs is the course's pages, sources and programs, embedded. The
// programs are made from the sources by build.sh, byte for byte the same each
// time.
package labs

import "embed"

// Files has a folder for each lab, named as docs/labs/README.md says.
//
//go:embed */*.md */*.svg */*.s */*.bin */*.txt */*.go */*.json
var Files embed.FS
