package dump

const (
	// pageRows and pageBytes bound a page of rows, and rowsExamined the rows of the store that are
	// looked at for it. A page takes about a millisecond, and so do the views of the store that it is
	// read by. The last record of a page may add 14 MiB, what JSON makes of one of 1 MiB.
	pageRows     = 1024
	pageBytes    = 512 << 10
	rowsExamined = 4 << 10
	// pages is how many pages a reading has: one is filled while another is written.
	pages = 3
	// tokenEvery is after how many rows a file of NDJSON has a token, if it has tokens.
	tokenEvery = 10_000

	// groupRows bounds a row group of Parquet; readers such as DuckDB divide their work by it.
	groupRows = 122_880
	// groupBytes bounds the text of the records of a row group. The writer holds the compressed
	// pages of one group in memory.
	groupBytes = 64 << 20

	// dictionaryBytes bounds the dictionary of a column. Beyond it values are written as they are.
	dictionaryBytes = 4 << 20

	// windowBytes is the window of zstd, and what an encoder takes is some times of it.
	windowBytes = 1 << 20

	// partRows and partBytes bound the rows of a part, and the text of its records before
	// compression. 10 billion records of 400 bytes are 4,000 parts.
	partRows  = 10_000_000
	partBytes = 1 << 30
	// partsMax bounds the parts of an export: 10 TB of text.
	partsMax = 99_999
	// noteBytesMax bounds the note of a part; a token has at most 8 KiB.
	noteBytesMax = 64 << 10
	// exportsMax bounds the exports of a destination that a daemon looks at.
	exportsMax = 10_000
)
