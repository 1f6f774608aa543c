# A worker in Perl, with nothing but what comes with it, written from docs/protocol.md: perl worker.pl SOCKET QUEUE COMMAND...
#
# Claims one batch after the other and runs COMMAND with the claim as JSON on its standard input. Keeps one connection, on
# which the claim ends if this process dies. Renews the claim while COMMAND runs, completes it on exit code 0, gives it back
# otherwise. Kills COMMAND with all that it started when the claim is lost or cancelled. Goes on with the next daemon.
use strict;
use warnings;
use IO::Handle;
use IO::Socket::UNIX;
use JSON::PP;
use List::Util 'min';
use POSIX ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

my ($path, $queue, @command) = @ARGV;
die "usage: worker.pl SOCKET QUEUE COMMAND...\n" unless @command;
my $lease = ($ENV{LEASE_MS} // 30_000) / 1000;
my $json = JSON::PP->new->utf8;
my $never = 9**9**9;
my ($socket, $buffer, $id) = (undef, '', 0);
my $grace = $never;    # Until when a daemon that starts again keeps the claim; never while connected.
my ($job, $status);    # The command that runs, and how it ended.
my @told;              # Notifications that nobody has looked at.

pipe(my $wakes, my $wake) or die $!;
$SIG{CHLD} = sub { while (waitpid(-1, POSIX::WNOHANG()) > 0) { $status = $? } syswrite $wake, '.' };
$SIG{$_} = sub { kill KILL => -$job if $job; exit 1 } for 'INT', 'TERM';
$SIG{PIPE} = 'IGNORE';
STDOUT->autoflush;

sub now { clock_gettime(CLOCK_MONOTONIC) }

sub disconnect { ($socket, $buffer, $grace) = (undef, '', now() + 4.5); return }

# Gives the next message; nothing when it is time, or when the connection or the command has ended.
sub receive {
    my ($until) = @_;
    while (1) {
        return $json->decode($1) if $buffer =~ s/^([^\n]*)\n//;
        my $bits = '';
        vec($bits, fileno $_, 1) = 1 for grep { $_ } $socket, $wakes;
        my $left = $until - now();
        return if $left <= 0;
        next if select($bits, undef, undef, $left == $never ? undef : $left) <= 0;
        return sysread $wakes, my $seen, 99 if vec $bits, fileno $wakes, 1;
        return disconnect() unless sysread $socket, $buffer, 65536, length $buffer;
    }
}

# Gives the result, or {kind} of a refusal: `late` when it is time. Whoever does not answer is asked again: that does no
# harm for what is called here, as what a lost claim left behind ends by itself.
sub call {
    my ($until, $method, %params) = @_;
    my ($pause, $complained) = (0.01, 0);
    while (now() < min($until, $job ? $grace : $never)) {
        my $why = "No daemon answers on $path.";
        if (!($socket //= IO::Socket::UNIX->new(Peer => $path))) {
            disconnect();
        } else {
            my $mine = ++$id;
            my $request = { jsonrpc => '2.0', id => $mine, method => $method, params => \%params };
            syswrite $socket, $json->encode($request) . "\n";
            while ($socket && now() < $until) {
                my $message = receive($until);
                next unless ref $message;    # The command has ended, which is for later.
                if (exists $message->{method}) { push @told, $message }
                next if exists $message->{method} || ($message->{id} // 0) != $mine;
                if ($message->{result}) { $grace = $never; return $message->{result} }
                my $data = $message->{error}{data};
                return $data unless $data->{retryable};
                $why = $message->{error}{message};
                disconnect() if ($data->{reason} // '') eq 'stopping';
                last;
            }
        }
        print STDERR "$why Asking again.\n" unless $complained++;
        sleep $pause * (0.5 + rand() / 2);
        $pause = min 0.5, 2 * $pause;
    }
    return { kind => 'late' };
}

# Starts the command in a process group of its own, with a text on its standard input.
sub start {
    my ($text) = @_;
    open my $input, '+>', undef or die $!;
    syswrite $input, $text;
    sysseek $input, 0, 0;
    undef $status;
    $job = fork // die $!;
    if ($job) { setpgrp $job, $job; return }
    setpgrp;
    open STDIN, '<&', $input or die $!;
    exec { $command[0] } @command or POSIX::_exit(127);
}

while (1) {
    my $asked = now();
    my $answer = call($never, 'queue.claim', queue => $queue, owner => 'worker.pl', leaseMs => 1000 * $lease,
        waitMs => 30_000, releaseOn => 'disconnect');
    die "The daemon refuses: $answer->{kind}.\n" if $answer->{kind};
    my $claim = $answer->{claim} or next;
    my @proof = (claimId => $claim->{claimId}, leaseToken => $claim->{leaseToken});
    # What was waited for may be older than it seems, if this process was stopped meanwhile: it is renewed before the work.
    my $renew_at = now() - $asked > $lease / 10 ? now() : $asked + $lease / 3;
    my $lost_at = $asked + $claim->{remainingMs} / 1000 - $lease / 10;
    $lost_at = now() + $lease if now() - $asked > $lease / 10;
    my $why = '';
    my $begun;
    @told = ();
    while (!defined $status || !$begun) {
        if (now() >= min $renew_at, $socket ? $never : now()) {
            my $sent = now();
            my $renewed = call($lost_at, 'queue.renew', @proof, leaseMs => 1000 * $lease);
            if ($renewed->{kind}) { $why = 'lost'; last }
            if ($renewed->{cancelling}) { $why = 'cancelled'; last }
            ($renew_at, $lost_at) = ($sent + $lease / 3, $sent + $renewed->{remainingMs} / 1000 - $lease / 10);
        }
        start($json->encode($claim)) unless $begun++;
        my $message = shift @told // receive(min $renew_at, $lost_at);
        next unless ref $message && ($message->{params}{claimId} // '') eq $claim->{claimId};
        $why = { 'claim.lost' => 'lost', 'claim.cancelling' => 'cancelled' }->{ $message->{method} // '' } // '';
        last if $why;
    }
    if ($why && $begun) {
        kill KILL => -$job;
        receive($never) until defined $status;
    }
    $job = undef;
    my $given_back = $why eq 'cancelled' || !$why && $status != 0;
    my @error = $why ? () : (error => 'wait status ' . ($status // 0));
    $answer = $why eq 'lost' ? { kind => 'claim_lost' }
        : $given_back ? call($lost_at, 'queue.abandon', @proof, @error)
        :               call($lost_at, 'queue.complete', @proof);
    print $answer->{kind} ? "lost\n" : $given_back ? "abandoned\n" : "completed\n";
}
