#!/usr/bin/env bash
# Makes Bambu Studio and OrcaSlicer trust the certificate authority of a PandaProxy, on macOS and Linux: it goes into
# each slicer's printer.cer. Runs with the bash 3.2 of macOS; needs openssl and awk.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'END'
usage: trust.sh CA.pem [OPTION...]
       trust.sh - [OPTION...]                      (authority on standard input)
       trust.sh --from HOST[:PORT] --sha256 HEX [OPTION...]
       trust.sh --check [CA.pem] [OPTION...]
       trust.sh --remove [OPTION...]

Adds the certificate authority of a PandaProxy to the file printer.cer of every Bambu Studio and
OrcaSlicer that it finds. Get the authority on the proxy with `sudo pandaproxy ca > CA.pem`.
Quit the slicer first, and start it again afterwards.

  --sha256 HEX      the authority's SHA-256, as the proxy prints it; another one is refused.
                    Repeatable: once for each certificate that `pandaproxy ca` has printed
  --from HOST       fetch the authority by TLS (port 8883 unless given); needs --sha256. A printer
                    whose files are relayed needs the file: it has the printer's certificates too
  --bundle PATH     change this printer.cer, or those below this folder; repeatable; no search then
  --keep-others     keep the authorities of other PandaProxys; without it they are removed as outdated
  --check           change nothing; status 1 if a slicer lacks the authority
  --remove          remove every PandaProxy authority, and what was added with it
  --dry-run         say what would be changed, and change nothing
  --resign          macOS: sign the changed application again, for this Mac only
  --root DIR        search below DIR instead of /, for example another system's disk

The file as it was is kept beside it as printer.cer.before-pandaproxy. Every other certificate in it
stays as it is, and the new file is read back before it replaces the old one. An update of the slicer
replaces printer.cer: run this again after it.
Status: 0 done or nothing to do, 1 a file could not be changed or lacks the authority, 2 wrong usage.
END
}

die() {
    printf 'trust.sh: %s\n' "$*" >&2
    exit 1
}

wrong() {
    printf 'trust.sh: %s; --help shows the options\n' "$*" >&2
    exit 2
}

say() {
    printf '  %s\n' "$*"
}

# hex TEXT: a SHA-256 in lower case without colons.
hex() {
    local digits
    digits=$(printf '%s' "$1" | tr -d ': ' | tr 'A-F' 'a-f')
    case ${#digits}:$digits in
    64:*[!0-9a-f]*) ;;
    64:*)
        printf '%s' "$digits"
        return
        ;;
    esac
    wrong '--sha256 takes 64 hexadecimal digits'
}

source='' from='' expected='' keep='' mode=add dry='' resign='' root='' bundles=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --sha256 | --from | --bundle | --root)
        [ $# -gt 1 ] || wrong "$1 needs a value"
        case $1 in
        --sha256) expected="$expected${expected:+ }$(hex "$2")" ;;
        --from) from=$2 ;;
        --bundle) bundles+=("$2") ;;
        --root) root=${2%/} ;;
        esac
        shift
        ;;
    --keep-others) keep=1 ;;
    --check) mode=check ;;
    --remove) mode=remove ;;
    --dry-run) dry=1 ;;
    --resign) resign=1 ;;
    -?*) wrong "the option $1 is unknown" ;;
    *)
        [ -z "$source" ] || wrong "two authorities are given: $source and $1"
        source=$1
        ;;
    esac
    shift
done
[ -z "$from" ] || [ -z "$source" ] || wrong 'give a file or --from, not both'
[ "$mode" != add ] || [ -n "$source$from" ] || wrong 'an authority is needed: a file, - or --from'
[ "$mode" != remove ] || [ -z "$source$from" ] || wrong '--remove takes no authority'
[ -z "$from" ] || [ -n "$expected" ] ||
    wrong '--from needs --sha256: without it another machine could answer with an authority of its own'
command -v openssl >/dev/null || die 'openssl is missing; install it'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What stands before each certificate that is added beside an authority, so that --remove finds it: the line that
# `pandaproxy ca` prints there, or the first of these where it has none.
readonly MARK='# added by trust.sh of PandaProxy'
readonly MARKS='# (added by trust\.sh of PandaProxy|PandaProxy: printer [ -~]*)'

# split FILE DIR: takes a PEM file apart into DIR/001.text, 001.pem, 002.text, 002.pem, ...: each certificate and
# what stands before it, and the text after the last one. A byte order mark is dropped, and two certificates that share
# a line, because a newline was missing between them, are separated: slicers read neither of those as they are.
split() {
    mkdir -p "$2"
    awk -v dir="$2" '
        function begin() { text = sprintf("%s/%03d.text", dir, ++n); pem = sprintf("%s/%03d.pem", dir, n) }
        BEGIN { begin() }
        NR == 1 { sub(/^\357\273\277/, "") }
        { gsub(/-----END CERTIFICATE----------BEGIN CERTIFICATE-----/,
               "-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----") }
        {
            count = split($0, lines, "\n")
            for (i = 1; i <= count; i++) {
                if (lines[i] ~ /^-----BEGIN CERTIFICATE-----/) inside = 1
                print lines[i] > (inside ? pem : text)
                if (inside && lines[i] ~ /^-----END CERTIFICATE-----/) {
                    inside = 0
                    close(text)
                    close(pem)
                    begin()
                }
            }
        }' "$1"
}

# certificates DIR: the certificates that split() wrote, in their order.
certificates() {
    find "$1" -name '*.pem' | sort
}

# describe DIR: asks openssl about each certificate there, once: its SHA-256 in lower case in NNN.sum, its subject in
# NNN.name. Both are empty for what is no certificate.
describe() {
    local one
    for one in $(certificates "$1"); do
        openssl x509 -in "$one" -noout -fingerprint -sha256 -subject -nameopt RFC2253 >"$one.facts" 2>/dev/null || true
        sed -n 's/^.*Fingerprint=//p' "$one.facts" | tr -d ':' | tr 'A-F' 'a-f' >"$one.sum"
        sed -n 's/^subject= *//p' "$one.facts" >"$one.name"
    done
}

sha256() {
    cat "$1.sum"
}

name_of() {
    cat "$1.name"
}

# is_ours FILE: whether it is the authority of a PandaProxy, by its name.
is_ours() {
    grep -Eqx 'CN=PandaProxy CA [0-9a-f]{8}' "$1.name"
}

# is_marked TEXT: whether the text before a certificate has a mark.
is_marked() {
    [ -f "$1" ] && tr -d '\r' <"$1" | grep -Eqx "$MARKS"
}

# mark_of TEXT: the mark in the text before a certificate, or the usual one.
mark_of() {
    { [ -f "$1" ] && grep -Ex "$MARKS" "$1"; } | tail -n 1 | grep . || printf '%s\n' "$MARK"
}

# lists FILE LINE: whether a file has that line.
lists() {
    [ -f "$1" ] && grep -Fqx "$2" "$1"
}

# is_expected SHA256: whether it was given with --sha256.
is_expected() {
    case " $expected " in
    *" $1 "*) return 0 ;;
    *) return 1 ;;
    esac
}

# fetch: writes the proxy's authority, as it sends it in the TLS handshake, to $work/given.
fetch() {
    local at=$from one
    case $from in
    *:*) ;;
    *) at=$from:8883 ;;
    esac
    openssl s_client -connect "$at" -showcerts </dev/null >"$work/chain" 2>/dev/null &
    local client=$!
    # A machine that accepts the connection and stays silent is given up after ten seconds.
    (
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            sleep 1
            kill -0 "$client" || exit 0
        done
        kill "$client"
    ) 2>/dev/null &
    wait "$client" || true
    split "$work/chain" "$work/chain.d"
    describe "$work/chain.d"
    : >"$work/given"
    for one in $(certificates "$work/chain.d"); do
        if is_expected "$(sha256 "$one")"; then cat "$one" >"$work/given"; fi
    done
    [ -s "$work/given" ] ||
        die "$at sends no certificate with this SHA-256; compare it with what 'sudo pandaproxy ca' prints there"
}

# What is to be added: the proxy's authority, and behind it what else `pandaproxy ca` printed.
mkdir "$work/add"
: >"$work/wanted"
if [ -n "$source$from" ]; then
    case $source in
    '') fetch ;;
    -) cat >"$work/given" ;;
    *)
        [ -f "$source" ] || die "$source: no such file"
        cat "$source" >"$work/given"
        ;;
    esac
    tr -d '\r' <"$work/given" >"$work/given.lf"
    split "$work/given.lf" "$work/add"
    describe "$work/add"
    first=$work/add/001.pem
    [ -s "$first" ] || die 'the authority is not PEM: no line begins with "-----BEGIN CERTIFICATE-----"'
    for one in $(certificates "$work/add"); do
        sum=$(sha256 "$one")
        [ -n "$sum" ] || die 'the authority is damaged: openssl cannot read it'
        # Two files of `pandaproxy ca` in one may have the same certificate.
        if lists "$work/wanted" "$sum"; then
            rm "$one"
            continue
        fi
        printf '%s\n' "$sum" >>"$work/wanted"
    done
    is_ours "$first" || die "this is no PandaProxy's authority but $(name_of "$first")"
    for one in $(certificates "$work/add"); do
        if is_ours "$one"; then what=authority; else what="printer's"; fi
        printf '%s: %s\nSHA-256:   %s\n' "$what" "$(name_of "$one")" "$(sha256 "$one")"
        if [ -n "$expected" ] && ! is_expected "$(sha256 "$one")"; then
            die 'its SHA-256 is not the one given with --sha256; nothing was changed'
        fi
    done
    [ -n "$expected" ] || say "compare this with what 'sudo pandaproxy ca' prints on the proxy"
fi

# search: every printer.cer below the folders that programs are installed in; packages differ in where they put it.
search() {
    local folder
    for folder in /usr/share /usr/lib /usr/local /opt /Applications /var/lib/flatpak/app \
        "$HOME/.local/share" "$HOME/.local/opt" "$HOME/Applications" "$HOME/Downloads" "$HOME/squashfs-root"; do
        [ -d "$root$folder" ] || continue
        find "$root$folder" -maxdepth 12 -type f -path '*/cert/printer.cer' 2>/dev/null || true
    done | sort -u
}

# packed: AppImages that were not extracted.
packed() {
    local folder
    for folder in "$HOME" "$HOME/Applications" "$HOME/Downloads" "$HOME/.local/bin" /opt; do
        [ -d "$root$folder" ] || continue
        find "$root$folder" -maxdepth 1 -type f \
            \( -iname '*bambu*studio*.appimage' -o -iname '*orca*slicer*.appimage' \) 2>/dev/null || true
    done | sort -u
}

if [ "${#bundles[@]}" -gt 0 ]; then
    for path in "${bundles[@]}"; do
        if [ -d "$path" ]; then
            find "$path" -type f -name printer.cer | sort
        elif [ -f "$path" ]; then
            while [ -L "$path" ]; do
                target=$(readlink "$path")
                case $target in
                /*) path=$target ;;
                *) path=$(dirname "$path")/$target ;;
                esac
            done
            printf '%s\n' "$path"
        else
            die "$path: no such file or folder"
        fi
    done >"$work/found"
else
    search >"$work/found"
    packed >"$work/packed"
    while IFS= read -r image; do
        printf '%s\n' "$image"
        say 'an AppImage is read-only; extract it where it is to stay:'
        say "    cd '$(dirname "$image")' && './$(basename "$image")' --appimage-extract"
        say 'then run this again with --bundle squashfs-root, and start squashfs-root/AppRun from then on'
    done <"$work/packed"
fi
[ -s "$work/found" ] || die 'no printer.cer of Bambu Studio or OrcaSlicer was found; name it with --bundle PATH'

# plan FILE DIR: decides what the file is to be, and writes into DIR: new (the content), others (SHA-256 of each
# certificate that stays untouched), notes (what changes), fault (why nothing can be done), here (what is there of ours).
plan() {
    local file=$1 dir=$2 one text sum
    mkdir "$dir"
    : >"$dir/new"
    : >"$dir/others"
    : >"$dir/notes"
    : >"$dir/here"
    split "$file" "$dir/old"
    describe "$dir/old"
    if [ -z "$(certificates "$dir/old")" ]; then
        echo 'it holds no certificate in PEM; install the slicer again' >"$dir/fault"
        return
    fi
    for one in $(certificates "$dir/old"); do
        text=${one%.pem}.text
        sum=$(sha256 "$one")
        if [ -z "$sum" ]; then
            echo 'one of its certificates is damaged; install the slicer again' >"$dir/fault"
            return
        fi
        if ! is_ours "$one" && ! is_marked "$text"; then
            printf '%s\n' "$sum" >>"$dir/others"
            cat "$one" >"$dir/stays"
        elif lists "$dir/here" "$sum"; then
            printf 'remove a duplicate of %s\n' "$(name_of "$one")" >>"$dir/notes"
            : >"$dir/stays"
        elif [ "$mode" = remove ] || { [ -n "$source$from" ] && [ -z "$keep" ] && ! lists "$work/wanted" "$sum"; }; then
            printf 'remove %s, SHA-256 %s\n' "$(name_of "$one")" "$sum" >>"$dir/notes"
            : >"$dir/stays"
        else
            printf '%s\n' "$sum" >>"$dir/here"
            cat "$one" >"$dir/stays"
        fi
        # The text before a certificate stays, but for the mark of one that goes.
        if [ -f "$text" ]; then
            if [ -s "$dir/stays" ]; then cat "$text"; else grep -Evx "$MARKS"$'\r?' "$text" || true; fi >>"$dir/new"
        fi
        cat "$dir/stays" >>"$dir/new"
    done
    for text in "$dir"/old/*.text; do
        if [ -f "$text" ] && [ ! -f "${text%.text}.pem" ]; then cat "$text" >>"$dir/new"; fi
    done
    # awk ends the last line, whether the file does or not.
    if [ ! -s "$dir/notes" ] && ! { cat "$file" && { [ -z "$(tail -c 1 "$file")" ] || echo; }; } | cmp -s - "$dir/new"
    then
        echo 'repair a byte order mark, or a newline that is missing between two certificates' >>"$dir/notes"
    fi
    for one in $(certificates "$work/add"); do
        sum=$(sha256 "$one")
        if lists "$dir/here" "$sum" || lists "$dir/others" "$sum"; then continue; fi
        printf 'add %s\n' "$(name_of "$one")" >>"$dir/notes"
        is_ours "$one" || mark_of "${one%.pem}.text" >>"$dir/new"
        cat "$one" >>"$dir/new"
    done
}

# verify DIR: reads the new content as the slicer's TLS library does, and compares. Prints what is wrong.
verify() {
    local dir=$1 one sum
    split "$dir/new" "$dir/after"
    describe "$dir/after"
    : >"$dir/others.after"
    : >"$dir/all.after"
    for one in $(certificates "$dir/after"); do
        sum=$(sha256 "$one")
        printf '%s\n' "$sum" >>"$dir/all.after"
        if ! is_ours "$one" && ! is_marked "${one%.pem}.text"; then printf '%s\n' "$sum" >>"$dir/others.after"; fi
    done
    cmp -s "$dir/others" "$dir/others.after" || echo 'other certificates would be changed'
    local read
    read=$(openssl crl2pkcs7 -nocrl -certfile "$dir/new" 2>/dev/null |
        openssl pkcs7 -print_certs 2>/dev/null | grep -c 'BEGIN CERTIFICATE' || true)
    [ "$read" = "$(wc -l <"$dir/all.after" | tr -d ' ')" ] || echo 'openssl reads another number of certificates'
    if [ "$mode" = add ]; then
        while IFS= read -r sum; do
            [ "$(grep -Fcx "$sum" "$dir/all.after")" = 1 ] || echo 'the authority would not be in it exactly once'
        done <"$work/wanted"
    fi
}

# replace FILE NEW: puts the new content in the file's place, in one step, with its owner and mode; the backup first.
# A new file and not the old one written over: Flatpak's files are shared with its repository.
replace() {
    local file=$1 new=$2 backup=$1.before-pandaproxy temporary=$1.pandaproxy-new
    # The backup is of the slicer's own file: one that holds nothing of ours replaces an older backup.
    if [ ! -e "$backup" ] || { [ "$3" = pristine ] && ! cmp -s "$file" "$backup"; }; then
        cp -p "$file" "$backup" || return 1
    fi
    # What --remove leaves is the backup, but for the newline at the end that was added to it.
    local content=$new
    if [ "$mode" = remove ] && { cat "$backup" && echo; } | cmp -s - "$new"; then content=$backup; fi
    if ! { cp -p "$file" "$temporary" && cat "$content" >"$temporary" && mv -f "$temporary" "$file"; }; then
        rm -f "$temporary"
        return 1
    fi
    if [ "$mode" = remove ] && cmp -s "$file" "$backup"; then rm -f "$backup"; fi
}

# explain FILE: why a file cannot be written, and what to do.
explain() {
    local app
    case $1 in
    *.app/Contents/*)
        app=${1%%.app/Contents/*}.app
        say 'macOS refuses the change ("App Management"). Either'
        say '  a. System Settings > Privacy & Security > App Management: switch on your terminal, open a new'
        say '     terminal window, and run this again; or'
        say "  b. cp -R '$app' ~/Applications/ and use that copy: run this again with"
        say "     --bundle ~/Applications/'$(basename "$app")' --resign"
        ;;
    *)
        if [ "$(id -u)" = 0 ]; then
            say 'the disk is read-only or full'
        else
            say 'it belongs to the system: run this again with sudo in front, for this file alone:'
            say "    sudo '$0' ${source:+CA.pem }--bundle '$1'"
        fi
        ;;
    esac
}

# seal FILE: macOS seals an application's files by its signature, which a changed file breaks.
seal() {
    local app
    case $1 in
    *.app/Contents/*) app=${1%%.app/Contents/*}.app ;;
    *) return 0 ;;
    esac
    if [ -n "$resign" ]; then
        codesign --force --deep --sign - "$app" || {
            say "codesign failed; macOS may call the application damaged until it is installed again"
            return 1
        }
        say 'signed again for this Mac'
    else
        say "the application's signature no longer fits; if macOS calls it damaged, run this again with --resign"
    fi
}

status=0 number=0
while IFS= read -r file <&3; do
    number=$((number + 1))
    dir=$work/$number
    printf '%s\n' "$file"
    if [ ! -r "$file" ]; then
        say 'cannot be read'
        explain "$file"
        status=1
        continue
    fi
    plan "$file" "$dir"
    if [ -s "$dir/fault" ]; then
        say "$(cat "$dir/fault")"
        status=1
        continue
    fi
    if [ "$mode" = check ]; then
        if [ -s "$dir/notes" ]; then
            while IFS= read -r note; do say "to do: $note"; done <"$dir/notes"
            status=1
        elif [ ! -s "$dir/here" ]; then
            say 'lacks the authority of a PandaProxy'
            status=1
        else
            say 'has the authority'
        fi
        continue
    fi
    if [ ! -s "$dir/notes" ]; then
        say 'nothing to do'
        # A signature that an earlier run broke can be made again.
        [ -z "$resign" ] || [ -n "$dry" ] || seal "$file" || status=1
        continue
    fi
    faults=$(verify "$dir")
    if [ -n "$faults" ]; then
        say "left as it is, since the new file would be wrong: $faults"
        status=1
        continue
    fi
    while IFS= read -r note; do say "${dry:+would }$note"; done <"$dir/notes"
    [ -z "$dry" ] || continue
    pristine=''
    if [ ! -s "$dir/here" ] && ! grep -q '^remove ' "$dir/notes"; then pristine=pristine; fi
    if replace "$file" "$dir/new" "$pristine" 2>"$work/error"; then
        say "done; the $(wc -l <"$dir/others" | tr -d ' ') other certificates are unchanged"
        seal "$file" || status=1
    else
        say "cannot be changed: $(sed -n '1s/^.*: //p' "$work/error")"
        explain "$file"
        status=1
    fi
done 3<"$work/found"

if [ "$mode" = add ] && [ -z "$dry" ] && [ "$status" = 0 ]; then
    printf 'Quit the slicer and start it again. An update of the slicer undoes this: run it again then.\n'
fi
exit "$status"
