#!/bin/sh
# Looks at what the packages in a directory hold: that deb and rpm are of the right
# machines and hold the same files, that the manual pages are without mistakes, that three
# shells complete, and that the examples are valid.
#
#     packaging/test/files.sh dist
set -eu
dist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
ok() { echo "ok: $*"; }

for arch in amd64:x86_64:x86-64 arm64:aarch64:aarch64; do
	deb_arch=${arch%%:*} machine=${arch##*:} rpm_arch=${arch#*:} rpm_arch=${rpm_arch%:*}
	deb=$(ls "$dist"/espalier_*_"$deb_arch".deb) rpm=$(ls "$dist"/espalier-*."$rpm_arch".rpm) tar=$(ls "$dist"/espalier_*_linux_"$deb_arch".tar.gz)
	root=$work/$deb_arch
	dpkg-deb -x "$deb" "$root"
	# What is of one format only is left out; the completions of zsh have two places.
	(cd "$root" && find . ! -type d | cut -c2- | grep -v '/lintian/\|/doc/espalier/c\(opyright\|hangelog.gz\)$' | sed s/vendor-completions/site-functions/ | sort) >"$work/of-deb"
	rpm -qp --nosignature --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$rpm" | sed -n 's/^[^d][^ ]* //p' | grep -v /licenses/ | sort >"$work/of-rpm"
	diff "$work/of-deb" "$work/of-rpm" || fail "$deb and $rpm hold different files"
	rpm -K --nosignature "$rpm" >"$work/log" || fail "rpm -K: $(cat "$work/log")"
	[ "$(rpm -qp --nosignature --qf '%{ARCH}' "$rpm")" = "$rpm_arch" ] || fail "$rpm is for another machine"
	mkdir "$work/tar-$deb_arch"
	tar -xzf "$tar" -C "$work/tar-$deb_arch" --strip-components=1
	cmp "$root/usr/bin/espalier" "$work/tar-$deb_arch/espalier" || fail "$tar holds another program"
	LC_ALL=C file -b "$root/usr/bin/espalier" >"$work/log"
	grep -q "$machine.*statically linked" "$work/log" || fail "not a static program of $machine: $(cat "$work/log")"
done
ok "deb, rpm and tarball hold the same, for amd64 and arm64"

root=$work/$(dpkg --print-architecture)
mkdir "$work/man"
cp "$root"/usr/share/man/man1/*.gz "$work/man"
gunzip "$work"/man/*
for page in "$work"/man/*; do
	LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" >/dev/null 2>>"$work/man.log"
	mandoc -T lint -W warning "$page" >>"$work/man.log" || true
done
[ ! -s "$work/man.log" ] || fail "manual pages: $(sort "$work/man.log" | uniq | head -20)"
ok "$(find "$work/man" -type f | wc -l) manual pages without warnings"

# Each shell is asked what comes behind "espalier st".
PATH=$root/usr/bin:$PATH
export PATH HOME="$work" ROOT="$root"
answer=$(bash -c '. /usr/share/bash-completion/bash_completion && . "$ROOT/usr/share/bash-completion/completions/espalier" &&
	COMP_LINE="espalier st" COMP_POINT=11 COMP_WORDS=(espalier st) COMP_CWORD=1 COMP_TYPE=9 && __start_espalier 2>/dev/null && echo "${COMPREPLY[*]}"')
[ "$answer" = status ] || fail "bash completes st to: $answer"
answer=$(fish --no-config -c 'source $ROOT/usr/share/fish/vendor_completions.d/espalier.fish; complete -C "espalier st"')
case $answer in status*) ;; *) fail "fish completes st to: $answer" ;; esac
# zsh completes in a terminal only: what its function hands over is written here.
answer=$(zsh -f <<'ZSH'
fpath=($ROOT/usr/share/zsh/vendor-completions $fpath)
autoload -Uz compinit && compinit -u -D
[[ $_comps[espalier] = _espalier ]] || exit
_describe() { local a; for a in "$@"; do [[ ${(tP)a} = array* ]] && print -l -- ${(P)a}; done; }
words=(espalier st) CURRENT=2
autoload +X _espalier
_espalier
ZSH
)
case $answer in status:*) ;; *) fail "zsh completes st to: $answer" ;; esac
ok "bash, zsh and fish complete"

for file in "$root"/usr/share/doc/espalier/examples/*.yaml "$root/etc/espalier/espalier.yaml"; do
	cp "$file" "$work/espalier.yaml"
	echo secret >"$work/ldap.password"
	chmod 600 "$work/ldap.password"
	# Where it inspects, it needs a CA; where data is belongs to the service.
	espalier ca init -c "$work/espalier.yaml" --set "data=$work/data" >/dev/null
	espalier validate -c "$work/espalier.yaml" --set "data=$work/data" >"$work/log" 2>&1 || fail "$file: $(cat "$work/log")"
	rm -r "$work/data"
done
ok "the configuration and the examples are valid"
