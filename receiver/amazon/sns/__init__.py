"""Pure. What Amazon sends us: envelope → signature → certificate → notice."""
