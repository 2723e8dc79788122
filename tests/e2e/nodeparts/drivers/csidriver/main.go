// Csidriver is a CSI driver whose volumes are directories of the node, as those of csi-driver-host-path are.
//
// The handle of a volume is the name of its directory. It registers itself with the kubelet, and it provisions the
// claims of its StorageClasses.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	core "k8s.io/api/core/v1"
	api "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const pause = 500 * time.Millisecond

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	name, node, socket, state string
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if strings.ContainsAny(request.VolumeId, "/\x00") || strings.HasPrefix(request.VolumeId, ".") || request.VolumeId == "" {
		return nil, status.Errorf(codes.InvalidArgument, "%q is not a volume", request.VolumeId)
	}
	source := filepath.Join(d.state, request.VolumeId)
	if _, err := os.Stat(source); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err := os.MkdirAll(request.TargetPath, 0o750); err != nil {
		return nil, err
	}
	// The kubelet repeats a call that took too long. A second mount would hide the first and stay behind.
	if mounted(source, request.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := unix.Mount(source, request.TargetPath, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	if request.Readonly {
		if err := unix.Mount("", request.TargetPath, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func mounted(source, target string) bool {
	one, err := os.Stat(source)
	two, other := os.Stat(target)
	return err == nil && other == nil && os.SameFile(one, two)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unix.Unmount(request.TargetPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, answer *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !answer.PluginRegistered {
		log.Printf("the kubelet does not accept the driver: %s", answer.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// provision makes a volume for each pending claim of a StorageClass of this driver.
func (d *driver) provision(ctx context.Context, client kubernetes.Interface) error {
	classes, err := client.StorageV1().StorageClasses().List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	policies := map[string]core.PersistentVolumeReclaimPolicy{}
	for _, class := range classes.Items {
		if class.Provisioner == d.name && class.ReclaimPolicy != nil {
			policies[class.Name] = *class.ReclaimPolicy
		}
	}
	if len(policies) == 0 {
		return nil
	}
	claims, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	for _, claim := range claims.Items {
		class := claim.Spec.StorageClassName
		if class == nil || claim.Status.Phase != core.ClaimPending || claim.Spec.VolumeName != "" {
			continue
		}
		policy, ours := policies[*class]
		if !ours {
			continue
		}
		name := "pvc-" + string(claim.UID)
		directory := filepath.Join(d.state, name)
		if err := os.MkdirAll(directory, 0o777); err != nil {
			return err
		}
		if err := os.Chmod(directory, 0o777); err != nil {
			return err
		}
		volume := &core.PersistentVolume{
			ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": d.name}},
			Spec: core.PersistentVolumeSpec{
				AccessModes:                   claim.Spec.AccessModes,
				Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
				ClaimRef:                      &core.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
				PersistentVolumeReclaimPolicy: policy,
				StorageClassName:              *class,
				PersistentVolumeSource:        core.PersistentVolumeSource{CSI: &core.CSIPersistentVolumeSource{Driver: d.name, VolumeHandle: name}},
				NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
					MatchExpressions: []core.NodeSelectorRequirement{{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{d.node}}},
				}}}},
			},
		}
		if _, err := client.CoreV1().PersistentVolumes().Create(ctx, volume, meta.CreateOptions{}); err != nil && !api.IsAlreadyExists(err) {
			log.Printf("claim %s/%s: %v", claim.Namespace, claim.Name, err)
		}
	}
	return d.remove(ctx, client)
}

// remove deletes the released volumes that are not retained.
func (d *driver) remove(ctx context.Context, client kubernetes.Interface) error {
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	for _, volume := range volumes.Items {
		released := volume.Status.Phase == core.VolumeReleased && volume.Spec.PersistentVolumeReclaimPolicy == core.PersistentVolumeReclaimDelete
		if released && volume.Annotations["pv.kubernetes.io/provisioned-by"] == d.name {
			if err := os.RemoveAll(filepath.Join(d.state, volume.Name)); err != nil {
				return err
			}
			if err := client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{}); err != nil && !api.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

func serve(socket string, register func(*grpc.Server)) {
	_ = os.Remove(socket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	log.Fatal(server.Serve(listener))
}

func main() {
	d := &driver{}
	flag.StringVar(&d.name, "name", "hostpath.csi.k8s.io", "the name of the driver")
	flag.StringVar(&d.node, "node", "", "the name of the node")
	flag.StringVar(&d.state, "state", "", "the directory of the volumes")
	kubelet := flag.String("kubelet", "/var/lib/kubelet", "the kubelet's directory")
	kubeconfig := flag.String("kubeconfig", "", "provision claims with this kubeconfig")
	flag.Parse()
	d.socket = filepath.Join(*kubelet, "plugins", d.name, "csi.sock")
	if err := os.MkdirAll(d.state, 0o755); err != nil {
		log.Fatal(err)
	}
	go serve(d.socket, func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, d)
		csi.RegisterNodeServer(server, d)
	})
	go serve(filepath.Join(*kubelet, "plugins_registry", d.name+"-reg.sock"), func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, d)
	})
	if *kubeconfig == "" {
		select {}
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	for {
		if err := d.provision(context.Background(), client); err != nil {
			log.Print(err)
		}
		time.Sleep(pause)
	}
}
