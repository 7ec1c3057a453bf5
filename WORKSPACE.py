"""The workspace of bk itself. Its tools are those of the module bk_tools, which other repositories use as well."""

from bkrules import bk_dep, workspace

workspace(name = "bk")

bk_dep(name = "bk_tools", path = "targets/tools/bk_tools")
