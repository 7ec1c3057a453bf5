module bk.invalid/sign-fixtures

go 1.26.0

require (
	github.com/ProtonMail/go-crypto v1.4.1
	golang.org/x/crypto v0.57.0
)

require (
	github.com/cloudflare/circl v1.6.2 // indirect
	golang.org/x/sys v0.48.0 // indirect
)
