// Gpuplugin offers devices that do not exist to a kubelet, under the name of a real resource.
//
// A container that gets one sees its number in the variable that NVIDIA's own plugin sets.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	devices int
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	answer := &api.ListAndWatchResponse{}
	for number := range p.devices {
		answer.Devices = append(answer.Devices, &api.Device{ID: strconv.Itoa(number), Health: api.Healthy})
	}
	if err := stream.Send(answer); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		variables := map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{Envs: variables})
	}
	return answer, nil
}

func main() {
	directory := flag.String("directory", api.DevicePluginPath, "the kubelet's directory of device plugins")
	resource := flag.String("resource", "nvidia.com/gpu", "the name of the resource")
	devices := flag.Int("devices", 2, "the number of devices")
	flag.Parse()
	endpoint := strings.ReplaceAll(*resource, "/", "-") + ".sock"
	socket := filepath.Join(*directory, endpoint)
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{devices: *devices})
	go func() {
		kubelet := "unix://" + filepath.Join(*directory, "kubelet.sock")
		connection, err := grpc.NewClient(kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: *resource}
		if _, err := api.NewRegistrationClient(connection).Register(context.Background(), request); err != nil {
			log.Fatal(err)
		}
	}()
	log.Fatal(server.Serve(listener))
}
