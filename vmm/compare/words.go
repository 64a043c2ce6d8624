package compare

// Languages are the languages of reports and tables, the default first.
func Languages() []string { return []string{"en", "ko"} }

// words are a report's texts in one language. %-verbs take what the field says.
type words struct {
	lang, title, subtitle       string
	host, warnings, skipped     string
	engine, start, exit, memory string
	disk, version, raw, table   string
	runs, tookOn, measured      string // tookOn: duration, date
	cpu, ram, kernel, kvm, load string
	cgroups, cache              string
	workload                    map[string]string
	guestRAM, private, shared   string
	pageTables, kernelMem       string
	diskKinds                   map[string]string
	hostPart, guestPart         string
	instances, seconds, cpus    string
	millis, mib                 string
	degrades, steady            string // degrades: engine, instances, what
	degradeWhat                 map[string]string
	kinds                       map[Kind]string
	charts                      map[string][2]string // heading; below the chart
	note                        string
}

func wordsOf(lang string) *words {
	if lang == "ko" {
		return &korean
	}
	return &english
}

var english = words{
	lang: "en", title: "Processes, containers and virtual machines", subtitle: "the same program in each, measured on one host",
	host: "The host", warnings: "Read this first", skipped: "Not measured",
	engine: "engine", start: "start", exit: "start to exit", memory: "memory", disk: "on disk", version: "version", raw: "All measurements (JSON)",
	table: "In numbers", runs: "runs", tookOn: "%s, on %s", measured: "measured",
	cpu: "CPU", ram: "memory", kernel: "kernel", kvm: "KVM", load: "load before", cgroups: "cgroups", cache: "page cache",
	workload: map[string]string{"cpu": "CPU", "memory": "memory", "files": "files", "syscalls": "system calls"},
	guestRAM: "guest RAM", private: "private", shared: "shared, its part", pageTables: "page tables", kernelMem: "kernel, by cgroup",
	diskKinds: map[string]string{"engine": "engine", "kernel": "guest kernel", "root": "root file system"},
	hostPart:  "host", guestPart: "guest", instances: "instances", seconds: "seconds since the program's first act", cpus: "CPUs busy",
	millis: "milliseconds, logarithmic", mib: "MiB",
	degrades: "%s: from %d instances on, %s.", steady: "No engine was worse with many instances than with one, within what was measured.",
	degradeWhat: map[string]string{"start": "a start takes more than twice as long", "memory": "an instance takes half as much memory again"},
	kinds:       map[Kind]string{KindProcess: "process", KindContainer: "container", KindMachine: "virtual machine"},
	note:        "Medians, with the 95 % confidence interval by bootstrap. Outliers lie beyond 1.5 interquartile ranges.",
	charts: map[string][2]string{
		"start":   {"Start time", "From the exec of the engine to the first act of the program in it: each dot is a run, the bar the median with its confidence interval. The program writes a byte as its first act and the host stamps its arrival, in the same way for all; the writing itself took up to %s by the program's own clock."},
		"work":    {"Execution time", "The same work in each engine: integer arithmetic; touching, filling and jumping about in 4 MiB; making, reading and removing files in memory; system calls. By the program's own clock, checked against the host's, median with confidence interval."},
		"memory":  {"Memory of one instance", "What one idle instance takes of the host's memory: proportional set sizes of all its processes, a machine's RAM as far as touched, page tables, and kernel memory charged to its cgroup. Daemons that serve all instances are not in the bars but in the table."},
		"cpu":     {"CPU use over time", "Each engine's processes while the program starts, is idle for a second, busy for a second and idle again, sampled from /proc every 100 ms. The line is all that the host spends; the dashed part was spent in the guest, where the host's kernel tells."},
		"density": {"Density", "Idle instances started one after the other: how long each further start takes, and what all take together. An engine is called degraded where a start takes twice as long as alone or an instance half as much memory again."},
		"disk":    {"Size on disk", "What must be on disk: the engine's programs, and for machines a kernel; the root file system is one small program. Shared libraries of the host are not counted."},
	},
}

var korean = words{
	lang: "ko", title: "프로세스, 컨테이너, 가상 머신", subtitle: "같은 프로그램을 같은 호스트에서 각각 측정",
	host: "호스트", warnings: "먼저 읽을 것", skipped: "측정하지 못한 것",
	engine: "엔진", start: "시작 시간", exit: "시작부터 종료까지", memory: "메모리", disk: "디스크 크기", version: "버전", raw: "전체 측정값 (JSON)",
	table: "수치", runs: "실행 횟수", tookOn: "소요 시간 %s, 측정일 %s", measured: "측정",
	cpu: "CPU", ram: "메모리", kernel: "커널", kvm: "KVM", load: "측정 전 부하", cgroups: "cgroup", cache: "페이지 캐시",
	workload: map[string]string{"cpu": "CPU", "memory": "메모리", "files": "파일", "syscalls": "시스템 호출"},
	guestRAM: "게스트 RAM", private: "전용", shared: "공유 몫", pageTables: "페이지 테이블", kernelMem: "커널 (cgroup 집계)",
	diskKinds: map[string]string{"engine": "엔진", "kernel": "게스트 커널", "root": "루트 파일 시스템"},
	hostPart:  "호스트", guestPart: "게스트", instances: "인스턴스 수", seconds: "프로그램의 첫 동작 이후 시간(초)", cpus: "사용 중인 CPU 수",
	millis: "밀리초 (로그 눈금)", mib: "MiB",
	degrades: "%s: 인스턴스 %d개부터 %s.", steady: "측정한 범위에서는 인스턴스가 늘어도 나빠진 엔진이 없습니다.",
	degradeWhat: map[string]string{"start": "시작 시간이 두 배를 넘습니다", "memory": "인스턴스당 메모리가 1.5배를 넘습니다"},
	kinds:       map[Kind]string{KindProcess: "프로세스", KindContainer: "컨테이너", KindMachine: "가상 머신"},
	note:        "중앙값과 부트스트랩 95% 신뢰 구간입니다. 이상값은 사분위 범위의 1.5배를 벗어난 값입니다.",
	charts: map[string][2]string{
		"start":   {"시작 시간", "엔진을 exec한 때부터 그 안의 프로그램이 첫 동작을 할 때까지의 시간으로, 점은 각 실행, 막대는 중앙값과 신뢰 구간입니다. 프로그램은 첫 동작으로 한 바이트를 쓰고 호스트가 그 도착 시각을 모든 엔진에서 같은 방법으로 기록하며, 쓰기 자체에는 프로그램의 시계로 최대 %s이 걸렸습니다."},
		"work":    {"실행 시간", "모든 엔진에서 같은 작업: 정수 연산, 4 MiB 메모리 접근, 메모리에 있는 파일의 생성·읽기·삭제, 시스템 호출. 프로그램의 시계로 재고 호스트의 시계와 대조하였으며, 중앙값과 신뢰 구간을 보입니다."},
		"memory":  {"인스턴스 하나의 메모리", "쉬고 있는 인스턴스 하나가 호스트에서 차지하는 메모리로, 모든 프로세스의 PSS, 실제로 사용된 게스트 RAM, 페이지 테이블, cgroup에 집계된 커널 메모리를 더한 값입니다. 모든 인스턴스가 함께 쓰는 데몬은 막대에 넣지 않고 표에 따로 적었습니다."},
		"cpu":     {"시간에 따른 CPU 사용", "프로그램이 시작하고 1초 쉬고 1초 일하고 다시 쉬는 동안 각 엔진의 프로세스를 /proc에서 100 ms마다 측정하였습니다. 실선은 호스트가 쓴 전체 시간이고, 점선은 호스트 커널이 구별할 수 있는 경우 게스트 안에서 쓴 시간입니다."},
		"density": {"집적도", "쉬는 인스턴스를 하나씩 늘리며 다음 인스턴스의 시작 시간과 전체 메모리를 측정하였습니다. 시작이 두 배 느려지거나 인스턴스당 메모리가 1.5배가 되면 나빠진 것으로 봅니다."},
		"disk":    {"디스크 크기", "디스크에 있어야 하는 것: 엔진의 프로그램과, 가상 머신의 경우 커널입니다. 루트 파일 시스템은 작은 프로그램 하나이며, 호스트의 공유 라이브러리는 세지 않았습니다."},
	},
}
