#!/usr/bin/env bash
# Makes the simulated printers' certificates and keys.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: make.sh [--help] [FOLDER]

Makes the test certificates and keys of the simulated printers anew, in FOLDER (default: the
folder of this script), with the openssl program (3.0 or newer). Tests that name a fingerprint
will notice. The authorities' keys are thrown away.

For each printer: NAME.pem (its leaf), NAME.key, stranger-NAME.pem (the same key and serial, signed
by an authority with the same name and another key). Besides: ca.pem, stranger-ca.pem, device-ca.pem.
TEXT
}

readonly DAYS=10957 # 30 years
readonly TITLE='TEST ONLY: a published key of a simulated printer. It protects nothing.'

case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
-*)
    echo "make.sh: '$1' is unknown; --help shows the options" >&2
    exit 2
    ;;
esac
folder=$(cd "${1:-$(dirname "${BASH_SOURCE[0]}")}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# root NAME: shaped like BBL CA: v3, RSA-2048, basicConstraints and key identifiers, no keyUsage.
root() {
    cat >"$work/root.cnf" <<'TEXT'
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
C = CN
O = Simulated Printers
CN = Simulated Printer CA
[extensions]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
TEXT
    openssl req -new -x509 -newkey rsa:2048 -noenc -sha256 -days "$DAYS" -config "$work/root.cnf" \
        -keyout "$work/$1.key" -out "$folder/$1.pem"
}

# key NAME BITS
key() {
    openssl genrsa -out "$work/$1.key" "$2"
    { echo "$TITLE" && cat "$work/$1.key"; } >"$folder/$1.key"
}

# leaf NAME SERIAL AUTHORITY OUT [openssl x509 options]: X.509 v1 unless the options add extensions.
leaf() {
    local name=$1 serial=$2 authority=$3 out=$4
    shift 4
    openssl req -new -key "$work/$name.key" -subj "/CN=$serial" -out "$work/$name.csr"
    openssl x509 -req -in "$work/$name.csr" -sha256 -days "$DAYS" -CA "$folder/$authority.pem" \
        -CAkey "$work/$authority.key" -set_serial "0x$(openssl rand -hex 16)" "$@" -out "$folder/$out.pem"
}

root ca
root stranger-ca

while read -r name serial; do
    key "$name" 2048
    leaf "$name" "$serial" ca "$name"
    leaf "$name" "$serial" stranger-ca "stranger-$name"
done <<'TEXT'
p1s 01P00A3C1200417
x1c 00M00A2B0700218
a1mini 03000A432500533
TEXT

# H2D: an intermediate authority, and a v3 leaf that has every extension but a name.
cat >"$work/device.cnf" <<'TEXT'
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[device]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, nonRepudiation, keyEncipherment, keyAgreement
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
TEXT
openssl req -new -newkey rsa:4096 -noenc -subj "/C=CN/O=Simulated Printers/CN=Simulated Device CA" \
    -keyout "$work/device-ca.key" -out "$work/device-ca.csr"
openssl x509 -req -in "$work/device-ca.csr" -sha256 -days "$DAYS" -CA "$folder/ca.pem" \
    -CAkey "$work/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -extfile "$work/device.cnf" -extensions authority -out "$folder/device-ca.pem"
key h2d 4096
leaf h2d 09400A561800109 device-ca h2d -extfile "$work/device.cnf" -extensions device
leaf h2d 09400A561800109 stranger-ca stranger-h2d -extfile "$work/device.cnf" -extensions device
