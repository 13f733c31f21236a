package cars

const (
	// workersMax is how many repositories are exported at a time: a destination may take
	// milliseconds to make a file durable.
	workersMax = 16
	// memoryBytes is how much of a CAR is kept in memory, by each worker. A larger one goes to a
	// file.
	memoryBytes = 4 << 20
	// pageRepos is how many repositories a part of the manifest has, some 1.5 MB. What an
	// interrupted export did for the last part is done again.
	pageRepos = 5000
	// partsMax bounds the parts: 500 million repositories.
	partsMax = 99_999
	// progressBytesMax bounds progress.json, which names each part.
	progressBytesMax = 32 << 20
	// windowBytes is the window of a compressed archive.
	windowBytes = 1 << 20
)
