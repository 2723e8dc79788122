// Dradriver offers devices that do not exist by dynamic resource allocation, under the name of a real driver.
//
// A container that gets one sees its name in the variable that CDI sets for it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	resource "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

type driver struct {
	name, cdi string
}

// PrepareResourceClaims writes a CDI device for each claim.
func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resource.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	answer := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		answer[claim.UID] = d.prepare(claim)
	}
	return answer, nil
}

func (d *driver) prepare(claim *resource.ResourceClaim) (prepared kubeletplugin.PrepareResult) {
	var names []string
	id := fmt.Sprintf("%s/claim=%s", d.name, claim.UID)
	for _, device := range claim.Status.Allocation.Devices.Results {
		if device.Driver != d.name {
			continue
		}
		names = append(names, device.Device)
		prepared.Devices = append(prepared.Devices, kubeletplugin.Device{
			Requests: []string{device.Request}, PoolName: device.Pool, DeviceName: device.Device, CDIDeviceIDs: []string{id},
		})
	}
	edits := map[string]any{"env": []string{"DRA_DEVICES=" + strings.Join(names, ",")}}
	spec := map[string]any{
		"cdiVersion": "0.6.0", "kind": d.name + "/claim",
		"devices": []any{map[string]any{"name": string(claim.UID), "containerEdits": edits}},
	}
	content, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(d.file(claim.UID), content, 0o644)
	}
	prepared.Err = err
	return prepared
}

// UnprepareResourceClaims removes what PrepareResourceClaims wrote.
func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	answer := map[types.UID]error{}
	for _, claim := range claims {
		answer[claim.UID] = nil
		if err := os.Remove(d.file(claim.UID)); err != nil && !os.IsNotExist(err) {
			answer[claim.UID] = err
		}
	}
	return answer, nil
}

func (d *driver) file(claim types.UID) string {
	return filepath.Join(d.cdi, fmt.Sprintf("%s-%s.json", d.name, claim))
}

// HandleError logs an error of the helper.
func (d *driver) HandleError(_ context.Context, err error, message string) {
	log.Printf("%s: %v", message, err)
}

// WatchHealthStatus reports that devices have no health.
func (d *driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

func main() {
	d := &driver{}
	flag.StringVar(&d.name, "name", "gpu.nvidia.com", "the name of the driver")
	flag.StringVar(&d.cdi, "cdi", "/var/run/cdi", "the directory of CDI specifications")
	node := flag.String("node", "", "the name of the node")
	kubelet := flag.String("kubelet", "/var/lib/kubelet", "the kubelet's directory")
	kubeconfig := flag.String("kubeconfig", "", "a kubeconfig that may write ResourceSlices")
	number := flag.Int("devices", 2, "the number of devices")
	flag.Parse()
	data := filepath.Join(*kubelet, "plugins", d.name)
	for _, directory := range []string{data, d.cdi} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			log.Fatal(err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	helper, err := kubeletplugin.Start(
		ctx, d,
		kubeletplugin.KubeClient(kubernetes.NewForConfigOrDie(config)),
		kubeletplugin.NodeName(*node),
		kubeletplugin.DriverName(d.name),
		kubeletplugin.PluginDataDirectoryPath(data),
		kubeletplugin.RegistrarDirectoryPath(filepath.Join(*kubelet, "plugins_registry")),
	)
	if err != nil {
		log.Fatal(err)
	}
	slice := resourceslice.Slice{}
	for index := range *number {
		slice.Devices = append(slice.Devices, resource.Device{Name: fmt.Sprintf("device-%d", index)})
	}
	pools := map[string]resourceslice.Pool{*node: {Slices: []resourceslice.Slice{slice}}}
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: pools}); err != nil {
		log.Fatal(err)
	}
	select {}
}
