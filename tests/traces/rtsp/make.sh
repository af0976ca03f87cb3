#!/usr/bin/env bash
# Makes the two short recordings in this folder, with Debian's ffmpeg (libx264, libx265).
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/traces/rtsp/make.sh [--help] [--dry-run]

Makes camera.h264 and camera.h265 anew: Annex B, one slice a picture, no B pictures, parameter sets
before every key picture, a key picture every second, no SEI. Each picture differs from every other.

  --dry-run   say what would be run, and run nothing
END
}

dry=
for option in "$@"; do
    case $option in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    *) echo "make.sh: '$option' is unknown; --help shows the options" >&2; exit 2 ;;
    esac
done

cd "$(dirname "$0")"

step() {
    printf '%s\n' "$*"
    [ -n "$dry" ] || "$@"
}

quiet=(ffmpeg -nostdin -hide_banner -loglevel error -y)

# 640x360, 30 a second, 4 seconds: about 240 KB.
step "${quiet[@]}" -f lavfi -i testsrc2=size=640x360:rate=30 -frames:v 120 \
    -pix_fmt yuv420p -threads 1 -c:v libx264 -profile:v main -bf 0 -g 30 -sc_threshold 0 \
    -b:v 480k -maxrate 480k -bufsize 480k -x264-params aud=0:repeat-headers=1 \
    -bsf:v filter_units=remove_types=6 camera.h264

# 320x180, 15 a second, 2 seconds: about 30 KB.
step "${quiet[@]}" -f lavfi -i testsrc2=size=320x180:rate=15 -frames:v 30 \
    -pix_fmt yuv420p -c:v libx265 -b:v 120k \
    -x265-params bframes=0:keyint=15:min-keyint=15:scenecut=0:open-gop=0:repeat-headers=1:aud=0:info=0:pools=1:frame-threads=1:log-level=error \
    camera.h265
