"""The disk cache: a content-addressed store (CAS) and an action cache, as REAPI means them."""
