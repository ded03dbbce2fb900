#!/bin/sh
# Installs what the tests use of the system: sshd, for engines that are built over SSH. Without it they are skipped.
set -u
PATH=$PATH:/usr/sbin:/sbin
command -v sshd >/dev/null && command -v ssh >/dev/null && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    # RUNLEVEL=1: installed, and not started
    apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends openssh-server >/dev/null && exit 0
fi
echo "there is no sshd here, and none could be installed: tests of --remote are skipped" >&2
exit 0
