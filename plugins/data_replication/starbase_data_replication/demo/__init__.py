"""What `starbase demo` needs beyond the plugin itself: a source server that comes from a wheel."""
