"""Hardware security modules by PKCS#11, through python-pkcs11. Read module.py first."""
