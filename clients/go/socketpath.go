package pawl

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

const maxSocketPathBytes = 107

var instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// SocketPaths gives the places where the daemon of this user may listen, in the order in which to try them, by the rule
// that daemon, clients and `pawl socket-path` share. An empty instance is $PAWL_INSTANCE, or "default".
func SocketPaths(instance string) ([]string, error) {
	if instance == "" {
		instance = os.Getenv("PAWL_INSTANCE")
	}
	if instance == "" {
		instance = "default"
	}
	if !instanceName.MatchString(instance) {
		return nil, refuse("invalid_params", "The instance name %q must be 1 to 64 letters, digits, '.', '_' or '-'.", instance)
	}
	if path := os.Getenv("PAWL_SOCKET"); path != "" {
		return []string{path}, nil
	}
	uid := os.Getuid()
	var directories []string
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); strings.HasPrefix(runtime, "/") {
		directories = append(directories, runtime+"/pawl")
	}
	if uid == 0 {
		directories = append(directories, "/run/pawl")
	}
	ofUser := "/run/user/" + strconv.Itoa(uid)
	if found, err := os.Lstat(ofUser); err == nil && ownerOf(found) == uid {
		directories = append(directories, ofUser+"/pawl")
	}
	// Anybody can make a directory of this name in the temporary directory and listen in it.
	shared := temporaryDirectory() + "/pawl-" + strconv.Itoa(uid)
	found, err := os.Lstat(shared)
	if err != nil || ownerOf(found) == uid && found.Mode().Perm()&0o077 == 0 {
		directories = append(directories, shared)
	} else if len(directories) == 0 {
		return nil, refuse("forbidden", "%s belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR.", shared)
	}
	var paths []string
	seen := map[string]bool{}
	for _, directory := range directories {
		if path := directory + "/" + instance + ".sock"; !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	return paths, nil
}

func ownerOf(found os.FileInfo) int {
	status, ok := found.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(status.Uid)
}

func temporaryDirectory() string {
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		if path := os.Getenv(name); path != "" {
			if len(path) > 1 {
				path = strings.TrimSuffix(path, "/")
			}
			return path
		}
	}
	return "/tmp"
}
