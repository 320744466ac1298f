"""The version, where everything can read it: the package's face hands it on, the build takes it from here."""

__version__ = "0.1.0"
