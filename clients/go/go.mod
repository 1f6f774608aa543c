// The path is a placeholder until there is a repository to fetch from; see README.md for its use from this folder.
module pawl.example/clients/go

go 1.19
