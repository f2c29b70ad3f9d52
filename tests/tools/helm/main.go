// Renders a chart with Helm's own loader and engine: `render CHART [VALUES]` prints the manifests, and tells what
// Helm would refuse. `helm` itself takes 1.6 times as long to build.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

func main() {
	if err := render(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render(arguments []string) error {
	if len(arguments) == 0 || len(arguments) > 2 {
		return fmt.Errorf("usage: render CHART [VALUES]")
	}
	chart, err := loader.Load(arguments[0])
	if err != nil {
		return err
	}
	if err := chart.Validate(); err != nil {
		return err
	}
	values := map[string]any{}
	if len(arguments) == 2 {
		file, err := os.Open(arguments[1])
		if err != nil {
			return err
		}
		defer file.Close()
		if values, err = loader.LoadValues(file); err != nil {
			return err
		}
	}
	release := common.ReleaseOptions{Name: "curfew", Namespace: "curfew", Revision: 1, IsInstall: true}
	// The schema of values is checked here.
	context, err := util.ToRenderValues(chart, values, release, common.DefaultCapabilities)
	if err != nil {
		return err
	}
	manifests, err := engine.Render(chart, context)
	if err != nil {
		return err
	}
	var names []string
	for name := range manifests {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".yaml") {
			fmt.Printf("---\n# Source: %s\n%s\n", name, manifests[name])
		}
	}
	return nil
}
