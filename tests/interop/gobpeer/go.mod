module gobpeer

go 1.18
