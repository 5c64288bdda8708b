"""pix2pix (Isola et al. 2017): what most virtual staining is done with today, trained on the same pairs to compare."""
