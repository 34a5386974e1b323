"""The accuracy of a plan, without a network being rebuilt."""
