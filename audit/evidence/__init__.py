"""What an auditor is given: the evidence, and the program that verifies it."""
