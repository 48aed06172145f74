#!/bin/sh
# Builds the container image with buildah, and runs what is in it as a container engine
# would, without one: in its own root, which is read-only, as its user, without any
# capability, in a network of its own, its configuration mounted as Kubernetes mounts a
# ConfigMap. As root:
#
#     packaging/test/container.sh
set -eu
cd "$(dirname "$0")/../.."

fail() {
	echo "FAIL: $*" >&2
	[ ! -e "$work/log" ] || tail -30 "$work/log" >&2
	exit 1
}
ok() { echo "ok: $*"; }
within() { # seconds, what, command…
	end=$(($(date +%s) + $1)) what=$2
	shift 2
	until "$@"; do
		[ "$(date +%s)" -lt $end ] || fail "$what"
		sleep 0.2
	done
}

if [ "${1:-}" != inside ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	# Storage of its own, so that nothing stays.
	cat >"$work/buildah" <<ENGINE
#!/bin/sh
exec $(command -v buildah) --root "$work/storage" --runroot "$work/run" --storage-driver vfs "\$@"
ENGINE
	chmod +x "$work/buildah"
	ENGINE=$work/buildah BUILD_FLAGS=--isolation=chroot packaging/container/build.sh espalier:test >"$work/log" 2>&1 || fail "it is not built"
	config=$("$work/buildah" inspect --type image --format '{{with .Docker.Config}}{{.User}} {{.WorkingDir}} {{.Entrypoint}} {{.Cmd}} {{.Healthcheck.Test}}{{end}}' espalier:test)
	want='65532:65532 /var/lib/espalier [/usr/bin/espalier] [run -c /etc/espalier/espalier.yaml] [CMD /usr/bin/espalier status -c /etc/espalier/espalier.yaml]'
	[ "$config" = "$want" ] || fail "the image says
$config, want
$want"
	container=$("$work/buildah" from --pull-never espalier:test)
	root=$("$work/buildah" mount "$container")
	files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
	[ "$files" = "./etc/espalier/espalier.yaml ./etc/ssl/certs/ca-certificates.crt ./usr/bin/espalier " ] || fail "it holds $files"
	ok "built: the program, its configuration and the public CAs; a user, and a health check"
	timeout 5m unshare --net --mount --pid --fork --mount-proc --kill-child "$0" inside "$work" "$root"
	exit
fi

work=$2 root=$3
: >"$work/log"
mount --make-rprivate /
ip link set lo up
mkdir -p "$root/proc" "$root/dev"
mount --bind "$root" "$root"
mount -t tmpfs -o mode=0755 tmpfs "$root/etc/espalier"
mount -t tmpfs -o mode=0700,uid=65532,gid=65532 tmpfs "$root/var/lib/espalier"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
mount -o remount,bind,ro "$root"

# A new version of the ConfigMap, as the kubelet swaps it in.
map() { # version, configuration
	mkdir "$root/etc/espalier/..$1"
	echo "$2" >"$root/etc/espalier/..$1/espalier.yaml"
	ln -s "..$1" "$root/etc/espalier/..data_tmp"
	mv -T "$root/etc/espalier/..data_tmp" "$root/etc/espalier/..data"
	[ -e "$root/etc/espalier/espalier.yaml" ] || ln -s ..data/espalier.yaml "$root/etc/espalier/espalier.yaml"
	find "$root/etc/espalier" -mindepth 1 -maxdepth 1 -type d ! -name "..$1" -exec rm -r {} +
}
cat >"$work/inside" <<INSIDE
#!/bin/sh
exec env -i ESPALIER_DATA=/var/lib/espalier PATH=/usr/bin ESPALIER_EGRESS_ALLOW=loopback setpriv --no-new-privs --clear-groups \
	unshare --root="$root" --wd=/var/lib/espalier --setgid=65532 --setuid=65532 -- /usr/bin/espalier "\$@"
INSIDE
chmod +x "$work/inside"
healthy() { "$work/inside" status -c /etc/espalier/espalier.yaml >"$work/status" 2>&1; }

map v1 "$(cat packaging/container/espalier.yaml)"
"$work/inside" run -c /etc/espalier/espalier.yaml >"$work/log" 2>&1 &
pid=$!
within 60 "it does not become healthy" healthy
[ "$(awk '/^CapEff|^CapPrm|^NoNewPrivs|^Uid/ {print $2}' "/proc/$pid/status" | tr '\n' ' ')" = "65532 0000000000000000 0000000000000000 1 " ] || fail "it has privileges"
ok "runs as its user without capabilities in a read-only root, and is healthy"

curl -sS --fail http://127.0.0.1:8080/proxy.pac | grep -q 'PROXY 127.0.0.1:3128' || fail "no PAC script"
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=origin -keyout "$work/key" -out "$work/cert" -days 2 2>/dev/null
openssl s_server -quiet -www -accept 127.0.0.1:8443 -key "$work/key" -cert "$work/cert" >/dev/null 2>&1 &
within 20 "no tunnel" sh -c 'curl -sk -x http://127.0.0.1:3128 https://127.0.0.1:8443/ | grep -q "Ciphers supported"'
ok "serves the PAC script, and a tunnel"

map v2 'pac: {proxies: ["proxy.example.org:3128"]}'
within 60 "a swapped ConfigMap is not taken over" sh -c 'curl -sS http://127.0.0.1:8080/proxy.pac | grep -q "PROXY proxy.example.org:3128"'
ok "takes over a ConfigMap that is swapped"
map v3 'nonsense: 1'
within 60 "a bad ConfigMap is not refused" grep -q 'espalier.yaml:1:1: nonsense' "$work/log"
healthy || fail "it is not healthy with a bad ConfigMap"
curl -sS http://127.0.0.1:8080/proxy.pac | grep -q "PROXY proxy.example.org:3128" || fail "a bad ConfigMap was taken over"
ok "stays healthy with a bad one, on the one before"

# preStop, then SIGTERM.
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
[ "$code" = 0 ] || fail "it ended with $code"
if healthy; then fail "it is healthy after its end"; fi
ok "ends on SIGTERM, and is not healthy any more"
