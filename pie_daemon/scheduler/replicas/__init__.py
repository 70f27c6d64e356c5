"""One model computed by several workers, behind one front."""
