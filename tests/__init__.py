"""The tests of fleetgate. A package only so that its directories share the helpers that stand here."""
