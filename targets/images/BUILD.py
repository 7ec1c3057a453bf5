"""The package //targets/images: images that the tests of others look for, made of Debian's busybox. By name only."""

from bkrules import debian_package, image

# The directories in which Debian's busybox has its commands: `busybox --list-full`.
COMMANDS = {
    "bin": (
        "arch ash base64 cat chgrp chmod chown cp cpio cttyhack date dd df dmesg dnsdomainname dumpkmap echo "
        "ed egrep false fatattr fgrep getopt grep gunzip gzip hostname ionice ipcalc kill link linux32 "
        "linux64 ln login ls lzop mkdir mknod mktemp more mount mt mv netstat nuke pidof ping ping6 ps pwd "
        "readlink resume rev rm rmdir rpm run-parts sed setpriv sh sleep stat stty su sync tar touch true "
        "umount uname uncompress usleep vi watch zcat"
    ),
    "sbin": (
        "acpid adjtimex arp blockdev depmod devmem fdisk findfs freeramdisk fstrim getty halt hwclock "
        "ifconfig ifdown ifup init insmod ip ipneigh klogd loadkmap logread losetup lsmod mdev mkdosfs mke2fs "
        "mkswap modinfo modprobe nameif pivot_root poweroff reboot rmmod route run-init start-stop-daemon "
        "sulogin swapoff swapon switch_root sysctl syslogd tc tunctl udhcpc uevent vconfig watchdog"
    ),
    "usr/bin": (
        "[ [[ ar ascii awk basename bc blkdiscard bunzip2 bzcat bzip2 cal chvt clear cmp crc32 crontab cut dc "
        "deallocvt diff dirname dos2unix dpkg dpkg-deb du dumpleases env expand expr factor fallocate find "
        "fold free ftpget ftpput groups head hexdump hostid id killall last less logger logname lsscsi lzcat "
        "lzma md5sum microcom mkfifo mkpasswd nc nl nproc nsenter nslookup od openvt passwd paste patch "
        "printf realpath renice reset rpm2cpio seq setkeycodes setsid sha1sum sha256sum sha3sum sha512sum "
        "shred shuf sort ssl_client strings svc svok tac tail taskset tee telnet test tftp time timeout top "
        "tr traceroute traceroute6 truncate ts tty unexpand uniq unix2dos unlink unlzma unshare unxz unzip "
        "uptime uudecode uuencode w wc wget which who whoami xargs xxd xz xzcat yes"
    ),
    "usr/sbin": (
        "arping brctl chroot crond fsfreeze httpd i2cdetect i2cdump i2cget i2cset i2ctransfer loadfont mim "
        "nologin partprobe rdate telnetd ubirename udhcpd"
    ),
}

PATH = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def paths(directory, to):
    return {directory + "/" + name: to for name in COMMANDS[directory].split()}


debian_package(
    name = "busybox-static",
    version = "1:1.35.0-4+deb12u1+b1",
    sha256 = {"linux-x86_64": "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"},
    files = ["bin/busybox"],
    tags = ["manual"],
)

# As Alpine's, it has its libraries in other files, and its shell looks for a command on PATH before it runs its applet.
debian_package(
    name = "busybox-dynamic",
    package = "busybox",
    version = "1:1.35.0-4+deb12u1+b1",
    sha256 = {"linux-x86_64": "4b355fad07d4fe1f5aa282e949281f8dcb7bcdebb023d7e40f4f8fe475e21e29"},
    files = ["bin/busybox"],
    tags = ["manual"],
)

LIBRARIES = ["ld-linux-x86-64.so.2", "libc.so.6", "libresolv.so.2"]

[
    debian_package(
        name = library,
        package = "libc6",
        version = "2.36-9+deb12u14",
        sha256 = {"linux-x86_64": "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf"},
        files = ["lib/x86_64-linux-gnu/" + library],
        tags = ["manual"],
    )
    for library in LIBRARIES
]

# The commands that the static busybox has alone.
STATIC = ["crond", "crontab", "dpkg", "dpkg-deb", "ed", "passwd", "su", "sulogin", "tc", "telnetd", "tunctl"]

# One of the certificates of authorities, for images in which just the file is looked for.
debian_package(
    name = "ca-certificates",
    version = "20250419~deb12u2",
    sha256 = {
        "linux-aarch64": "b9f76b5271a7ac373fd5e7e1b5b826a71ddd702b42a0d104955ecb1acfffc94b",
        "linux-x86_64": "b9f76b5271a7ac373fd5e7e1b5b826a71ddd702b42a0d104955ecb1acfffc94b",
    },
    files = ["usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt"],
    tags = ["manual"],
)

# As docker.io/library/busybox, with two differences. Scripts stand in for the commands that Debian's busybox lacks. And the
# commands are symbolic links to /bin/busybox, where the original has hard links: BuildKit's tests of merges and differences
# hash every path of the directories that they compare, and the 300 commands are 2 MB each. Such a test took 25 s, in a cell
# and by hand, and takes 5 s so.
image(
    name = "busybox_files",
    files = {
        "bin/busybox": ":busybox-static",
        "bin/addgroup": "addgroup",
        "bin/adduser": "adduser",
        "bin/ttysize": "ttysize",
        "etc/group": "busybox.group",
        "etc/nsswitch.conf": "nsswitch.conf",
        "etc/passwd": "busybox.passwd",
        "etc/shadow": "shadow",
    },
    symlinks = {"usr/bin/env": "../../bin/busybox"}
    | {"bin/" + name: "busybox" for names in COMMANDS.values() for name in names.split()},
    directories = {
        "dev": "0755",
        "home": "0755",
        "root": "0700",
        "tmp": "1777",
        "usr/sbin": "0755",
        "var/spool/mail": "0755",
        "var/www": "0755",
    },
    modes = {"bin/addgroup": "0755", "bin/adduser": "0755", "bin/ttysize": "0755", "etc/shadow": "0640"},
    owners = {"home": "65534:65534", "var/spool/mail": "8:8", "var/www": "33:33"},
    tags = ["manual"],
)

# Docker's has its command in a step of the history, which tests count.
image(name = "busybox", base = ":busybox_files", cmd = ["sh"], env = PATH, tags = ["manual"])

# What tests look for in docker.io/library/alpine. It has no packages to install: `apk` reports that, and fails. `wget` is a script,
# since Debian's busybox lacks its option -T.
image(
    name = "alpine",
    files = {
        "bin/busybox": ":busybox-dynamic",
        "etc/alpine-release": "alpine-release",
        "etc/group": "alpine.group",
        "etc/nsswitch.conf": "nsswitch.conf",
        "etc/passwd": "alpine.passwd",
        "etc/shadow": "shadow",
        "etc/ssl/certs/ca-certificates.crt": ":ca-certificates",
        "lib64/ld-linux-x86-64.so.2": ":ld-linux-x86-64.so.2",
        "sbin/apk": "apk",
        "usr/bin/ttysize": "ttysize",
        "usr/bin/wget": "wget",
        "usr/sbin/addgroup": "addgroup",
        "usr/sbin/adduser": "adduser",
    }
    | {"lib/" + library: ":" + library for library in LIBRARIES[1:]},
    symlinks = {"etc/ssl/cert.pem": "certs/ca-certificates.crt", "var/run": "../run"}
    | {
        path: target
        for directory in COMMANDS
        for path, target in paths(directory, "/bin/busybox").items()
        if path.rpartition("/")[2] not in ["wget", *STATIC]
    },
    directories = {
        "dev": "0755",
        "home": "0755",
        "media": "0755",
        "mnt": "0755",
        "opt": "0755",
        "proc": "0555",
        "root": "0700",
        "run": "0755",
        "srv": "0755",
        "sys": "0555",
        "tmp": "1777",
        "usr/lib": "0755",
        "usr/local/bin": "0755",
        "usr/share": "0755",
        "var/cache": "0755",
        "var/lib": "0755",
        "var/log": "0755",
        "var/tmp": "1777",
    },
    modes = {
        "etc/shadow": "0640",
        "sbin/apk": "0755",
        "usr/bin/ttysize": "0755",
        "usr/bin/wget": "0755",
        "usr/sbin/addgroup": "0755",
        "usr/sbin/adduser": "0755",
    },
    owners = {"etc/shadow": "0:42"},
    cmd = ["/bin/sh"],
    env = PATH,
    tags = ["manual"],
)

# As docker.io/tonistiigi/test:nolayers.
image(name = "nolayers", tags = ["manual"])

# As docker.io/tonistiigi/hellofs.
image(name = "hellofs", files = {"hellofs": "//targets/tools/hellofs:hellofs"}, tags = ["manual"])
