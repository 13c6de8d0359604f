"""Head matchers: which teacher head teaches which student head."""
from .attention_head_matcher import AttentionHeadMatcher
from .head_matchers import AverageHeadMatcher, HeadMatcher, OneToOneHeadMatcher, SelectHeadMatcher

__all__ = ['AttentionHeadMatcher', 'AverageHeadMatcher', 'HeadMatcher', 'OneToOneHeadMatcher', 'SelectHeadMatcher']
