"""Debian packages: version, SHA-256, and files by their folders. The libraries that a file loads are there too, but for libc."""

PACKAGES = {
    "coreutils": (
        "9.1-1",
        "61038f857e346e8500adf53a2a0a20859f4d3a3b51570cc876b153a2d51a3091",
        {
            "bin": (
                "cat chmod chown cp date dd echo false ln ls mkdir mknod mv pwd readlink rm rmdir sleep "
                "stty sync touch true uname"
            ),
            "usr/bin": (
                "basename cut dirname env expr head id printf seq sha256sum sort stat tail tee test tr uniq wc"
            ),
        },
    ),
    "dash": (
        "0.5.12-2",
        "33ea40061da2f1a861ec46212b2b6a34f0776a049b1a3f0abce2fb8cb994258f",
        {"bin": "dash sh"},
    ),
    "dnsmasq-base": (
        "2.90-4~deb12u2",
        "77f56034a23b200c9787d3d9b423030a1e95618f476e011d988daacc19919bc1",
        {"usr/sbin": "dnsmasq"},
    ),
    "git": (
        "1:2.39.5-0+deb12u3",
        "637a85ddd6247fab13bdd0592f2f39aff04ce4dbf0655d3ab553ac359a38ce6f",
        {
            "usr/bin": "git git-receive-pack git-upload-archive git-upload-pack",
            "usr/lib/git-core": (
                "git git-daemon git-http-backend git-http-fetch git-merge-one-file git-remote-http "
                "git-remote-https git-sh-i18n git-sh-i18n--envsubst git-sh-setup git-submodule"
            ),
        },
    ),
    "gpg": (
        "2.2.40-1.1+deb12u2",
        "5bb24757dc7206f42f419cc1309a4496d1e8ef2b1b539e095ad1c173ef6aa65d",
        {"usr/bin": "gpg"},
    ),
    "gpg-agent": (
        "2.2.40-1.1+deb12u2",
        "3f6b29302a0c0478358efb7e6d7b98e5a246db4287659494975423e482328caa",
        {"usr/bin": "gpg-agent"},
    ),
    "gpgconf": (
        "2.2.40-1.1+deb12u2",
        "ce17a8b76468d3f4d6448efdeb5dab8a2613a9e0eb2c37f0987418a0d3ebd5a0",
        {"usr/bin": "gpg-connect-agent gpgconf"},
    ),
    "grep": (
        "3.8-5",
        "3264acea728df3c48a54f20e9291b965130e306b9d00adac76647049da7196df",
        {"bin": "grep"},
    ),
    "iptables": (
        "1.8.9-2",
        "2928d3ca6ca8a3dc3f423f6752822b1f3614a5ba609ff7806bcba4449ffe90e1",
        {
            "usr/lib/x86_64-linux-gnu/xtables": (
                "libipt_REJECT.so libipt_icmp.so libxt_DNAT.so libxt_MASQUERADE.so libxt_NAT.so "
                "libxt_SNAT.so libxt_addrtype.so libxt_comment.so libxt_conntrack.so libxt_mark.so "
                "libxt_multiport.so libxt_standard.so libxt_state.so libxt_tcp.so libxt_udp.so"
            ),
            "usr/sbin": "xtables-legacy-multi",
        },
    ),
    "libacl1": (
        "2.3.1-3",
        "8be9df5795114bfe90e2be3d208ef47a5edd3fc7b3e20d387a597486d444e5e2",
        {"usr/lib/x86_64-linux-gnu": "libacl.so.1"},
    ),
    "libassuan0": (
        "2.5.5-5",
        "5912430927da16ccc831459679207fdbb9dfc5a206f2bab8d6f36d5a1ab53e25",
        {"usr/lib/x86_64-linux-gnu": "libassuan.so.0"},
    ),
    "libattr1": (
        "1:2.5.1-4",
        "c4945123d66d0503ba42e2fc0585abc76d0838978c6d277b9cc37a4da25d1a34",
        {"usr/lib/x86_64-linux-gnu": "libattr.so.1"},
    ),
    "libbrotli1": (
        "1.0.9-2+deb12u1",
        "e27b3d655fa6fadd7a56f706687e94573c0af68b7d6df394a32a381a3a6c6d8b",
        {
            "usr/lib/x86_64-linux-gnu": "libbrotlicommon.so.1 libbrotlidec.so.1",
        },
    ),
    "libbz2-1.0": (
        "1.0.8-5+b1",
        "54149da3f44b22d523b26b692033b84503d822cc5122fed606ea69cc83ca5aeb",
        {"lib/x86_64-linux-gnu": "libbz2.so.1.0"},
    ),
    "libc6": (
        "2.36-9+deb12u14",
        "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf",
        {"lib/x86_64-linux-gnu": "libpthread.so.0"},  # libnpth0 names it; it is empty, since libc has its functions
    ),
    "libcap2": (
        "1:2.66-4+deb12u3+b1",
        "8d684c673e7483802a5c447834b0df6fce006eb3a7109e1be412f5ad425bb24f",
        {"lib/x86_64-linux-gnu": "libcap.so.2"},
    ),
    "libcom-err2": (
        "1.47.0-2+b2",
        "a2bac7015e78fbc0c504df3e441f3a22292f1d2d77f9ccda760057f3690e22f2",
        {"lib/x86_64-linux-gnu": "libcom_err.so.2"},
    ),
    "libcurl3-gnutls": (
        "7.88.1-10+deb12u15",
        "bf430ecf80f7808704e0187cddc582fd57fc98789ea356d4797651edad387ef3",
        {"usr/lib/x86_64-linux-gnu": "libcurl-gnutls.so.4"},
    ),
    "libdbus-1-3": (
        "1.14.10-1~deb12u1",
        "18ee0ce5fab9f7b671e87da1e9fa18660e36e04a3402f24bdb8635e0ba1d35f6",
        {"lib/x86_64-linux-gnu": "libdbus-1.so.3"},
    ),
    "libffi8": (
        "3.4.4-1",
        "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
        {"usr/lib/x86_64-linux-gnu": "libffi.so.8"},
    ),
    "libgcrypt20": (
        "1.10.1-3+deb12u1",
        "e7a56552139c693904a6f9712234c05fe918353273a7cbdb5e62f423ad71bb97",
        {"usr/lib/x86_64-linux-gnu": "libgcrypt.so.20"},
    ),
    "libgmp10": (
        "2:6.2.1+dfsg1-1.1",
        "187aedef2ed763f425c1e523753b9719677633c7eede660401739e9c893482bd",
        {"usr/lib/x86_64-linux-gnu": "libgmp.so.10"},
    ),
    "libgnutls30": (
        "3.7.9-2+deb12u7",
        "30abec8c824feb1d2d7e9000a34083cccd19d139625e1b21547e3ac53b922f8e",
        {"usr/lib/x86_64-linux-gnu": "libgnutls.so.30"},
    ),
    "libgpg-error0": (
        "1.46-1",
        "89944ee11d7370ce6ef46fc52f094c4a6512eff8943ec4c6ebefeae6360ceada",
        {"lib/x86_64-linux-gnu": "libgpg-error.so.0"},
    ),
    "libgssapi-krb5-2": (
        "1.20.1-2+deb12u5",
        "d8b87aea91b956b416c01a28c44ff6228315ae3b73de40acddac3dc5043607d2",
        {"usr/lib/x86_64-linux-gnu": "libgssapi_krb5.so.2"},
    ),
    "libhogweed6": (
        "3.8.1-2",
        "ed8185c28b2cb519744a5a462dcd720d3b332c9b88a1d0002eac06dc8550cb94",
        {"usr/lib/x86_64-linux-gnu": "libhogweed.so.6"},
    ),
    "libidn2-0": (
        "2.3.3-1+b1",
        "d50716d5824083d667427817d506b45d3f59dc77e1ca52de000f3f62d4918afa",
        {"usr/lib/x86_64-linux-gnu": "libidn2.so.0"},
    ),
    "libip4tc2": (
        "1.8.9-2",
        "f2c48b367f9ec13f9aa577e7ccf81b371ce5d5fe22dddf9d7aa99f1e0bb7cfc4",
        {"usr/lib/x86_64-linux-gnu": "libip4tc.so.2"},
    ),
    "libip6tc2": (
        "1.8.9-2",
        "be88db3dfa2fe3345ea343207f7c75345602686121e579023d021c348b9b4f4d",
        {"usr/lib/x86_64-linux-gnu": "libip6tc.so.2"},
    ),
    "libjansson4": (
        "2.14-2",
        "3fc9742f9f1a37bcb9931df6074b4d1483419ef832ad5349f47323e75fc27864",
        {"usr/lib/x86_64-linux-gnu": "libjansson.so.4"},
    ),
    "libk5crypto3": (
        "1.20.1-2+deb12u5",
        "7b6e47d15c5c9cdcd456137533d8308aeba608a54cec73b28bd59bfc4b54cf06",
        {"usr/lib/x86_64-linux-gnu": "libk5crypto.so.3"},
    ),
    "libkeyutils1": (
        "1.6.3-2",
        "cfac89e6a7a54ff3c6a4f843310e25efeddaa771baeae470bd98bd588c373563",
        {"lib/x86_64-linux-gnu": "libkeyutils.so.1"},
    ),
    "libkrb5-3": (
        "1.20.1-2+deb12u5",
        "c90801be09701af221b54dd502a59cb378b7284ff31e480738baca317d2f7653",
        {"usr/lib/x86_64-linux-gnu": "libkrb5.so.3"},
    ),
    "libkrb5support0": (
        "1.20.1-2+deb12u5",
        "8b9c05f2d8d461a10d657b118f572af5bf8fd6c8f93dcef81e852c5ab0f428ab",
        {"usr/lib/x86_64-linux-gnu": "libkrb5support.so.0"},
    ),
    "libldap-2.5-0": (
        "2.5.13+dfsg-5",
        "4b6c30f6554149c594628d945edc6003f0eea8d0cc1341638c0e71375db147ed",
        {
            "usr/lib/x86_64-linux-gnu": "liblber-2.5.so.0 libldap-2.5.so.0",
        },
    ),
    "liblz4-1": (
        "1.9.4-1",
        "64cde86cef1deaf828bd60297839b59710b5cd8dc50efd4f12643caaee9389d3",
        {"usr/lib/x86_64-linux-gnu": "liblz4.so.1"},
    ),
    "liblzma5": (
        "5.4.1-1+deb12u2",
        "3d8c29c8c21ec6007635e1b2591edf98b771c9572a085968f47452b33040f384",
        {"lib/x86_64-linux-gnu": "liblzma.so.5"},
    ),
    "libmnl0": (
        "1.0.4-3",
        "4581f42e3373cb72f9ea4e88163b17873afca614a6c6f54637e95aa75983ea7c",
        {"usr/lib/x86_64-linux-gnu": "libmnl.so.0"},
    ),
    "libnetfilter-conntrack3": (
        "1.0.9-3",
        "65f1539238f60fcc85d115acd640474f45c77bfddcf402eb7d75965a783c2bc8",
        {"usr/lib/x86_64-linux-gnu": "libnetfilter_conntrack.so.3"},
    ),
    "libnettle8": (
        "3.8.1-2",
        "45922e6e289ffd92f0f92d2bb9159e84236ff202d552a461bf10e5335b3f0261",
        {"usr/lib/x86_64-linux-gnu": "libnettle.so.8"},
    ),
    "libnfnetlink0": (
        "1.0.2-2",
        "ae5cbba417ea48f34c1f72c27e8146a81f20614c1296bca2cd7234c8215fddcc",
        {"usr/lib/x86_64-linux-gnu": "libnfnetlink.so.0"},
    ),
    "libnftables1": (
        "1.0.6-2+deb12u2",
        "3a8223f9bfba99d97bf25296ac83de307ab036e1df63e5965f88809266851947",
        {"usr/lib/x86_64-linux-gnu": "libnftables.so.1"},
    ),
    "libnftnl11": (
        "1.2.4-2",
        "9e619e1470a1915264e906020f3bfc046fd8458043b1342686d997b5078213af",
        {"usr/lib/x86_64-linux-gnu": "libnftnl.so.11"},
    ),
    "libnghttp2-14": (
        "1.52.0-1+deb12u3",
        "5a5736cee57e51c1baed869979e6ecdbc6495e939e33203d6cfe3b6e5a149e3f",
        {"usr/lib/x86_64-linux-gnu": "libnghttp2.so.14"},
    ),
    "libnpth0": (
        "1.6-3",
        "43c90d45f7cf5584108964b919d6c728680d81af5fa70c8fb367d661cef54e8c",
        {"usr/lib/x86_64-linux-gnu": "libnpth.so.0"},
    ),
    "libp11-kit0": (
        "0.24.1-2",
        "251330faddbf013f060fcdb41f4b0c037c8a6e89ba7c09b04bfcc4e3f0807b22",
        {"usr/lib/x86_64-linux-gnu": "libp11-kit.so.0"},
    ),
    "libpcre2-8-0": (
        "10.42-1+deb12u2",
        "d2f7edfcc7689b9e0761c2742cc824ac86a20768bc5e8057818dc6875291fe76",
        {"usr/lib/x86_64-linux-gnu": "libpcre2-8.so.0"},
    ),
    "libpsl5": (
        "0.21.2-1",
        "4f0d35610204e4e754b057748719744114621f2f6f4202d846c314860a981afb",
        {"usr/lib/x86_64-linux-gnu": "libpsl.so.5"},
    ),
    "libreadline8": (
        "8.2-1.3",
        "e02ebbd3701cf468dbf98d6d917fbe0325e881f07fe8b316150c8d2a64486e66",
        {"lib/x86_64-linux-gnu": "libreadline.so.8"},
    ),
    "librtmp1": (
        "2.4+20151223.gitfa8646d.1-2+b2",
        "e1f69020dc2c466e421ec6a58406b643be8b5c382abf0f8989011c1d3df91c87",
        {"usr/lib/x86_64-linux-gnu": "librtmp.so.1"},
    ),
    "libsasl2-2": (
        "2.1.28+dfsg-10+deb12u1",
        "d6f20408e2be92ebd9f5e3b1c1935b075efb3f03abb5f48f7b991a0ad3e2d6a5",
        {"usr/lib/x86_64-linux-gnu": "libsasl2.so.2"},
    ),
    "libselinux1": (
        "3.4-1+b6",
        "2b07f5287b9105f40158b56e4d70cc1652dac56a408f3507b4ab3d061eed425f",
        {"lib/x86_64-linux-gnu": "libselinux.so.1"},
    ),
    "libsqlite3-0": (
        "3.40.1-2+deb12u2",
        "a8d78b40e9b4e422224aeebfe0e4dfc243f6acf3532490b0c05480d4283d41e2",
        {"usr/lib/x86_64-linux-gnu": "libsqlite3.so.0"},
    ),
    "libssh2-1": (
        "1.10.0-3+deb12u1",
        "fff72a194e493f88e100a2567e22472bb4ab828d429c2956965c6f2f134f1b3a",
        {"usr/lib/x86_64-linux-gnu": "libssh2.so.1"},
    ),
    "libssl3": (
        "3.0.22-1~deb12u2",
        "cb4784740daa9b3b0eaea2b444bbefa686794afbbf3d678d238c1fd9875f2efd",
        {"usr/lib/x86_64-linux-gnu": "libcrypto.so.3"},
    ),
    "libsystemd0": (
        "252.39-1~deb12u2",
        "013c07514a9e4933b2d5c098018695a6aa42d085dbc483ce2c094a954c8a1b0a",
        {"usr/lib/x86_64-linux-gnu": "libsystemd.so.0"},
    ),
    "libtasn1-6": (
        "4.19.0-2+deb12u1",
        "2c27c613b69be248d09432839ea3d3382f6ee27fabaa65987aa2d884cd00afda",
        {"usr/lib/x86_64-linux-gnu": "libtasn1.so.6"},
    ),
    "libtinfo6": (
        "6.4-4",
        "072d908f38f51090ca28ca5afa3b46b2957dc61fe35094c0b851426859a49a51",
        {"lib/x86_64-linux-gnu": "libtinfo.so.6"},
    ),
    "libunistring2": (
        "1.0-2",
        "d466bbfe011d764d793c1d9d777cad9c7cf65b938e11598f27408171ad95a951",
        {"usr/lib/x86_64-linux-gnu": "libunistring.so.2"},
    ),
    "libxtables12": (
        "1.8.9-2",
        "cb841d66950a43af4a398625313d2f3da9065299c9738538de6c2c3495857040",
        {"usr/lib/x86_64-linux-gnu": "libxtables.so.12"},
    ),
    "libzstd1": (
        "1.5.4+dfsg2-5+deb12u1",
        "67dc1ee693e5c22b1a2be2bb70d8244b040836ce3f5dd79e006f7806bc3d9f1c",
        {"usr/lib/x86_64-linux-gnu": "libzstd.so.1"},
    ),
    "openssh-client": (
        "1:9.2p1-2+deb12u10",
        "42c250b8b9110382488c53c066a960bc564ddac2cb9e449f47b6cdbb5fc1cb60",
        {"usr/bin": "ssh ssh-add ssh-agent ssh-keygen"},
    ),
    "sed": (
        "4.9-1+deb12u1",
        "fd557efeee8aae4619c2cb7f68aadccb804322ad4a99ab048aaae5901d253885",
        {"bin": "sed"},
    ),
    "zlib1g": (
        "1:1.2.13.dfsg-1",
        "d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4",
        {"lib/x86_64-linux-gnu": "libz.so.1"},
    ),
}
