package pac
