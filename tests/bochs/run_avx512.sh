#!/usr/bin/env bash
# Runs a static x86-64 Linux program on an emulated processor that has AVX-512 with VNNI, for
# machines that have none. The emulator is Bochs; it boots a Debian kernel whose only process is
# the program.
#
#   run_avx512.sh BINARY [ARGS...]
#
#   stdout       what the program printed (stdout and stderr together, \n line ends)
#   stderr       one line on the times
#   exit status  the program's; 124 after the time limit, 125 if the program was never reached
#
# Needs Debian 12 (x86-64), no root:
#   apt-get install --no-install-recommends \
#     bochs bochs-term bochsbios vgabios isolinux syslinux-common xorriso cpio
# The kernel (linux-image-cloud-amd64, 26 MB) and busybox-static are fetched once with `apt-get
# download` (run `apt-get update` before) and unpacked in the work directory, not installed. Tested
# with Bochs 2.7+dfsg-4+deb12u1 and Linux 6.1.176-1.
#
# Takes 10 to 30 s for the boot on one core, and then some 300 times as long as the host would.
# The program gets 512 MiB, no network, no stdin, no files but /proc and /dev, and clocks that mean
# nothing.
#
# First: gcc -O2 -static -ffp-contract=off avx512_probe.c -o probe && ./run_avx512.sh ./probe
#
#   FSKERNEL_BOCHS_DIR      work directory, default ${XDG_CACHE_HOME:-$HOME/.cache}/fskernel-bochs
#   FSKERNEL_BOCHS_TIMEOUT  limit in seconds, default 1800
set -euo pipefail

die() { echo "run_avx512.sh: $*" >&2; exit 125; }

[ $# -ge 1 ] || die "usage: run_avx512.sh BINARY [ARGS...]"
binary=$1
shift
[ -f "$binary" ] && [ -x "$binary" ] || die "$binary is not an executable file"
[[ $(LC_ALL=C ldd "$binary" 2>&1) != *"=>"* ]] || die "$binary is not static: link it with -static"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${FSKERNEL_BOCHS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fskernel-bochs}
limit=${FSKERNEL_BOCHS_TIMEOUT:-1800}
isolinux=/usr/lib/ISOLINUX/isolinux.bin
ldlinux=/usr/lib/syslinux/modules/bios/ldlinux.c32

missing=()
command -v bochs >/dev/null || missing+=(bochs)
compgen -G '/usr/lib/*/bochs/plugins/libbx_term_gui.so' >/dev/null || missing+=(bochs-term)
[ -f /usr/share/bochs/BIOS-bochs-latest ] || missing+=(bochsbios)
[ -e /usr/share/bochs/VGABIOS-lgpl-latest ] || missing+=(vgabios)
[ -f $isolinux ] || missing+=(isolinux)
[ -f $ldlinux ] || missing+=(syslinux-common)
command -v xorriso >/dev/null || missing+=(xorriso)
command -v cpio >/dev/null || missing+=(cpio)
[ ${#missing[@]} = 0 ] ||
  die "missing: apt-get install --no-install-recommends ${missing[*]}"

# fetch PACKAGE DIRECTORY: unpacks a Debian package without installing it.
fetch() {
  local tmp
  tmp=$(mktemp -d "$work/fetch.XXXXXX")
  (cd "$tmp" && apt-get -q download "$1" && dpkg-deb -x ./*.deb unpacked) >"$tmp/log" 2>&1 || {
    cat "$tmp/log" >&2
    rm -rf "$tmp"
    die "cannot fetch the Debian package $1 (apt-get update?)"
  }
  rm -rf "$2"
  mv "$tmp/unpacked" "$2"
  rm -rf "$tmp"
}

mkdir -p "$work"
work=$(cd "$work" && pwd)
if ! compgen -G "$work/kernel/boot/vmlinuz-*" >/dev/null; then
  image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
  [ -n "$image" ] || die "apt knows no linux-image-cloud-amd64 (apt-get update?)"
  fetch "$image" "$work/kernel"
fi
[ -x "$work/busybox/bin/busybox" ] || fetch busybox-static "$work/busybox"

run=$(mktemp -d "$work/run.XXXXXX")
pid=
cleanup() {
  # Bochs ignores SIGTERM.
  [ ! -s "$run/bochs.pid" ] || kill -9 "$(cat "$run/bochs.pid")" 2>/dev/null || true
  [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
  rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The CD: boot loader, kernel, and an initramfs that holds the program and calls it.
mkdir -p "$run/iso" "$run/root/dev" "$run/root/proc"
cp "$work/busybox/bin/busybox" "$run/root/busybox"
cp "$binary" "$run/root/program"
quoted=
for arg in "$@"; do quoted+=" '${arg//\'/\'\\\'\'}'"; done
cat >"$run/root/init" <<INIT
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
exec </dev/null
echo "@@BEGIN"
/program$quoted
/busybox printf '\n@@EXIT %d\n' \$?
/busybox poweroff -f
INIT
chmod 755 "$run/root/init" "$run/root/program" "$run/root/busybox"
(cd "$run/root" && find . | cpio -o -H newc --quiet) >"$run/iso/initrd"
cp "$(compgen -G "$work/kernel/boot/vmlinuz-*" | tail -n 1)" "$run/iso/vmlinuz"
cp "$isolinux" "$ldlinux" "$here/isolinux.cfg" "$run/iso/"
cp "$here/bochsrc" "$run/bochsrc"
xorriso -as mkisofs -quiet -o "$run/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table "$run/iso" >"$run/xorriso.log" 2>&1 ||
  { cat "$run/xorriso.log" >&2; die "cannot make the boot CD"; }

# Bochs draws on a terminal of its own (script makes it), 80x25 or it aborts. Debian's Bochs has the
# debugger built in, which waits at a prompt unless a file of commands says to go on.
debugger=
if [[ $(bochs --help 2>&1) == *" -rc "* ]]; then
  printf 'c\nquit\n' >"$run/commands"
  debugger='-rc commands'
fi
cat >"$run/start" <<START
stty rows 25 cols 80
echo \$\$ >bochs.pid
exec bochs -q -f bochsrc $debugger
START
: >"$run/serial.txt"
begin=$SECONDS
(cd "$run" && TERM=vt100 timeout "$limit" \
  script -qec 'sh start' /dev/null </dev/null >screen.txt 2>&1) &
pid=$!

# Everything between the marks is the program's; the empty line before the last mark is init's.
tail -n +1 -s 0.5 -f --pid="$pid" "$run/serial.txt" | {
  inside=false empty=0
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    if ! $inside; then
      [ "$line" != "@@BEGIN" ] || { inside=true; booted=$SECONDS; }
    elif [[ $line =~ ^@@EXIT\ ([0-9]+)$ ]]; then
      while [ $empty -gt 1 ]; do echo; empty=$((empty - 1)); done
      echo "${BASH_REMATCH[1]}" >"$run/status"
      echo "run_avx512.sh: boot $((booted - begin)) s, program $((SECONDS - booted)) s" >&2
      inside=false
    elif [ -z "$line" ]; then
      empty=$((empty + 1))
    else
      while [ $empty -gt 0 ]; do echo; empty=$((empty - 1)); done
      printf '%s\n' "$line"
    fi
  done
} &
wait $!  # in the background, so that a signal to this script is answered at once
wait "$pid" || true
pid=

if [ -s "$run/status" ]; then exit "$(cat "$run/status")"; fi
if [ $((SECONDS - begin)) -ge "$limit" ]; then
  echo "run_avx512.sh: stopped after $limit s" >&2
  exit 124
fi
{ tail -n 20 "$run/serial.txt" "$run/bochs.log" || true; } >&2
die "the emulator ended before the program did"
