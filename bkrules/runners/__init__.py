"""The runners of actions, one for each mnemonic."""
