"""The rules: one file for each kind of target."""

from __future__ import annotations

from bkrules.model.rule import Rule
from bkrules.rules.build_test import BUILD_AGREEMENT, BUILD_TEST
from bkrules.rules.c_toolchain import C_TOOLCHAIN
from bkrules.rules.debian_package import DEBIAN_PACKAGE
from bkrules.rules.genrule import FILEGROUP, GENRULE
from bkrules.rules.go import GO_BINARY, GO_TOOLCHAIN
from bkrules.rules.go_releases import GO_RELEASES
from bkrules.rules.go_test import GO_TEST
from bkrules.rules.host_binary import HOST_BINARY
from bkrules.rules.http_file import HTTP_FILE
from bkrules.rules.image import ESTARGZ_IMAGE, IMAGE
from bkrules.rules.image_archive import IMAGE_ARCHIVE
from bkrules.rules.image_mirror import IMAGE_MIRROR
from bkrules.rules.test_matrix import TEST_MATRIX
from bkrules.rules.test_suite import TEST_SUITE
from bkrules.rules.worker import WORKER

_ALL = (
    C_TOOLCHAIN,
    DEBIAN_PACKAGE,
    FILEGROUP,
    GENRULE,
    GO_TOOLCHAIN,
    GO_BINARY,
    GO_RELEASES,
    GO_TEST,
    HOST_BINARY,
    HTTP_FILE,
    IMAGE,
    ESTARGZ_IMAGE,
    IMAGE_ARCHIVE,
    IMAGE_MIRROR,
    WORKER,
    TEST_MATRIX,
    TEST_SUITE,
    BUILD_TEST,
    BUILD_AGREEMENT,
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _ALL}
