"""Prove that a change of the code changed nothing: every config resolves, and seeded runs end, as before."""
