"""Files and arrays of pictures: read, write, resize, degrade and compare them."""
