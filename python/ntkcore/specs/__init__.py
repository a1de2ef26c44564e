"""Networks as plain data: layers, ready nets, and what they become, programs of plain ops."""
