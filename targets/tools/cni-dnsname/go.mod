module bk.invalid/pins

go 1.24

tool github.com/containers/dnsname/plugins/meta/dnsname

require (
	github.com/alexflint/go-filemutex v0.0.0-20171022225611-72bdc8eae2ae // indirect
	github.com/containernetworking/cni v0.7.1 // indirect
	github.com/containernetworking/plugins v0.8.2 // indirect
	github.com/containers/dnsname v1.3.1 // indirect
	github.com/coreos/go-iptables v0.4.5 // indirect
	github.com/pkg/errors v0.8.1 // indirect
	github.com/sirupsen/logrus v1.4.2 // indirect
	golang.org/x/sys v0.0.0-20190916202348-b4ddaad3f8a3 // indirect
)
