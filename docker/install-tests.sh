#!/bin/sh
# Installs what the tests use of the system: sshd, for engines that are built over SSH. Without it they are skipped.
set -eu
PATH=$PATH:/usr/sbin:/sbin
command -v sshd >/dev/null && command -v ssh >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "there is no sshd here: tests of --remote are skipped" >&2
    exit 0
fi
apt-get update -qq
# RUNLEVEL=1: installed, and not started
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssh-server >/dev/null
