# Plain Perl of fixed work: hashes, regular expressions, sorting, strings. Prints a few sums.
use strict;
use warnings;

my $scale = $ARGV[0];

sub numbers {
  my $seed = shift;
  return sub {
    $seed = ($seed * 16807) % 2147483647;
    return $seed >> 6;
  };
}

my ($draw, %seen, @lines) = (numbers(42));
for (1 .. 40000 * $scale) {
  my $n = $draw->();
  my $word = chr(97 + $n % 26) . chr(97 + int($n / 26) % 26) . chr(97 + int($n / 676) % 7);
  $seen{$word}++;
  push @lines, "$word:" . $n % 1000 if $n % 4 == 0;
}
my $kinds = keys %seen;
my @sorted = sort { $seen{$b} <=> $seen{$a} || $a cmp $b } keys %seen;

my ($matches, $digits) = (0, 0);
for (@lines) {
  $matches++ if /^[aeiou].[b-g]:\d*([13579])$/;
  $digits += $1 if /:(\d+)/;
  (my $turned = $_) =~ s/([a-z])([a-z])/$2$1/g;
  $matches += length $turned if $turned =~ /aa|zz/;
}

my $text = join ' ', @lines;
my %fields = map { split /:/ } split / /, $text;
my $check = 0;
$check = ($check * 31 + ord $_) % 1000003 for split //, substr $text, 0, 20000 * $scale;
print "$kinds $sorted[0] $sorted[-1] $matches $digits ", scalar keys %fields, " $check\n";
