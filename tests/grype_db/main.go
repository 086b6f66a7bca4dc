// Build a small vulnerability database with Grype's own builder, from the records in a folder.
//
//	grype-db-build RECORDS OUT [BUILT]
//
// RECORDS holds one JSON file a provider, {"schema": URL, "items": [...]}, each item in the form that Grype's
// data source (vunnel) writes. OUT gets the archive that `grype db import` takes; its path is printed.
// BUILT, for example 2026-11-25T00:00:00Z, is the date that the database carries; without it, now.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/OneOfOne/xxhash"
	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/anchore/grype/grype/db"
	"github.com/anchore/grype/grype/db/provider"
)

type records struct {
	Schema string            `json:"schema"`
	Items  []json.RawMessage `json:"items"`
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func write(path string, content []byte) string { // its checksum
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	must(os.WriteFile(path, content, 0o644))
	return fmt.Sprintf("%016x", xxhash.Checksum64(content))
}

// state lays one provider's records out as a vunnel workspace, which is what the builder reads.
func state(file, folder string, built time.Time) provider.State {
	content, err := os.ReadFile(file)
	must(err)
	var all records
	must(json.Unmarshal(content, &all))
	name := strings.TrimSuffix(filepath.Base(file), ".json")
	var checksums strings.Builder
	for number, item := range all.Items {
		envelope, err := json.Marshal(map[string]any{"schema": all.Schema, "identifier": fmt.Sprint(name, number), "item": item})
		must(err)
		path := fmt.Sprintf("results/%03d.json", number)
		fmt.Fprintf(&checksums, "%s  %s\n", write(filepath.Join(folder, path), envelope), path)
	}
	listing := write(filepath.Join(folder, "checksums"), []byte(checksums.String()))
	metadata, err := json.Marshal(provider.State{
		Provider: name, Version: 1, DistributionVersion: 1, Processor: "hand-written", Timestamp: built, Store: "flat-file",
		Listing: &provider.File{Path: "checksums", Digest: listing, Algorithm: "xxh64"},
	})
	must(err)
	write(filepath.Join(folder, "metadata.json"), metadata)
	made, err := provider.ReadState(filepath.Join(folder, "metadata.json"))
	must(err)
	return *made
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: grype-db-build RECORDS OUT [BUILT]")
	}
	built, out := time.Now().UTC(), os.Args[2]
	if len(os.Args) > 3 {
		var err error
		built, err = time.Parse(time.RFC3339, os.Args[3])
		must(err)
	}
	work, err := os.MkdirTemp("", "records")
	must(err)
	defer os.RemoveAll(work)
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.json"))
	must(err)
	var states provider.States
	for _, file := range files {
		states = append(states, state(file, filepath.Join(work, filepath.Base(file)), built))
	}
	must(os.MkdirAll(out, 0o755))
	must(db.Build(db.BuildConfig{
		SchemaVersion: 6, Directory: out, States: states, Timestamp: built, IncludeCPEParts: []string{"a", "o", "h"},
		SQLiteCacheSizeKiB: 16384,
	}))
	made, err := gorm.Open(sqlite.Open(filepath.Join(out, "vulnerability.db"))) // the builder dates it "now"
	must(err)
	must(made.Exec("UPDATE db_metadata SET build_timestamp = ?", built).Error)
	must(db.Package(out, "", "tar.gz", nil))
	archives, err := filepath.Glob(filepath.Join(out, "*.tar.gz"))
	must(err)
	fmt.Println(archives[0])
}
